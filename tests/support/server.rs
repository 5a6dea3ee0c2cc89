//! Real servers as child processes. Each one has a free port and its own directory, runs as an
//! unprivileged user, and is killed when dropped.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A server. Dropping this value ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts a server that writes its output to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("the server's directory is ours");
        let again = log.try_clone().expect("a file can be shared");
        let command = command.stdin(Stdio::null()).stdout(log).stderr(again);
        let child = command.spawn().expect("the server starts");
        Self { child }
    }

    /// Starts a server that writes its address to the first line of its output. The server ends
    /// when its input ends.
    pub fn start_announced(command: &mut Command) -> (Self, String) {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let output = child.stdout.take().expect("the output is piped");
        let mut place = String::new();
        let server = Self { child };
        BufReader::new(output)
            .read_line(&mut place)
            .expect("the server writes its address");
        assert!(place.ends_with('\n'), "the server ended before it listened");
        (server, place.trim_end().into())
    }

    /// Returns the id of the process, so that a test can stop or kill it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reports whether the process is still running.
    pub fn is_running(&self) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // A process that has ended stays a zombie until its parent waits for it.
        state.is_ok_and(|state| !state.contains(") Z "))
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) {
        // The process may have ended already.
        let _ = self.child.wait();
    }

    /// Kills the server at once, like a power cut.
    pub fn kill(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a port on which no process listens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener
        .local_addr()
        .expect("a bound listener has an address")
        .port()
}

/// Creates a directory that the unprivileged user may write to.
pub fn directory() -> TempDir {
    let directory = TempDir::new().expect("the temporary directory can be written");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700))
        .expect("the directory is ours");
    if is_root() {
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("root may change the owner");
    }
    directory
}

/// Returns a command that runs without root's rights: servers such as Postgres refuse to run as
/// root.
pub fn unprivileged(program: impl AsRef<OsStr>) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
        .arg(program);
    command
}

/// Finds a program on `PATH` or in one of these directories. Panics with the remedy if the program
/// is missing, because a skipped check proves nothing.
pub fn find(program: &str, elsewhere: &[&str], remedy: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = elsewhere
        .iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path));
    places
        .map(|place| place.join(program))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{program} is not on this machine; {remedy}"))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Debian's user `nobody`.
const NOBODY: u32 = 65534;
