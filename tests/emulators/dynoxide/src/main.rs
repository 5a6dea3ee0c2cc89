//! Serves DynamoDB from memory on a free port of the loopback interface, and prints its URL. Ends
//! when its standard input ends, so it cannot outlive the test that started it.

use std::error::Error;
use std::io;

use dynoxide::Database;
use dynoxide::server::serve_on;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    serve_on(listener, Database::memory()?).await;
    Ok(())
}
