//! Files that import each other.
//!
//! Rust divides a module into files: the module's own file uses its parts, and the parts use the
//! items of the module. So an import from a part to a module around it does not count. Every other
//! import counts.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::paths;
use super::source::Source;

/// The files from which each file imports something.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Returns each group of files in which every file leads to every other.
pub(crate) fn circles(sources: &[Source]) -> Vec<Vec<String>> {
    let imports = imports(sources);
    let reach: Imports = imports
        .keys()
        .map(|file| (file.clone(), reached(&imports, file)))
        .collect();
    let mut circles = BTreeSet::new();
    for (file, reached) in &reach {
        if reached.contains(file) {
            let leads_back = |other: &&String| reach[*other].contains(file);
            let members = reached.iter().filter(leads_back).cloned();
            circles.insert(members.collect::<Vec<_>>());
        }
    }
    circles.into_iter().collect()
}

/// Returns all files to which one file leads.
fn reached(imports: &Imports, file: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        for next in &imports[file] {
            if reached.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    reached
}

fn imports(sources: &[Source]) -> Imports {
    let modules: BTreeMap<_, _> = sources.iter().map(|it| (&it.modules[..], it)).collect();
    let all = Modules(modules);
    let name = |source: &Source| source.path.to_string_lossy().into_owned();
    let files = sources.iter().map(|source| {
        let used = all.paths_of(source).into_iter();
        let used = used.filter_map(|path| all.file_of(&path));
        let other = used.filter(|used| !source.modules.starts_with(&used.modules));
        (name(source), other.map(name).collect())
    });
    files.collect()
}

struct Modules<'a>(BTreeMap<&'a [String], &'a Source>);

impl<'a> Modules<'a> {
    /// Returns the paths that a file names, from the crate's root.
    fn paths_of(&self, source: &Source) -> Vec<Vec<String>> {
        let own = &source.modules;
        let is_part = |name: &str| {
            let part = [&own[..], &[name.to_owned()]].concat();
            self.0.contains_key(&part[..])
        };
        let begins = |name: &str| matches!(name, "crate" | "super" | "self") || is_part(name);
        let found = paths(&source.code, begins).into_iter();
        let rooted = found.map(|path| match path[0].as_str() {
            "crate" => path[1..].to_vec(),
            "super" => [&own[..own.len() - 1], &path[1..]].concat(),
            "self" => [own, &path[1..]].concat(),
            _ => [own, &path[..]].concat(),
        });
        rooted.collect()
    }

    /// Returns the file of the last module on a path.
    fn file_of(&self, path: &[String]) -> Option<&'a Source> {
        (1..=path.len())
            .rev()
            .find_map(|length| self.0.get(&path[..length]).copied())
    }
}
