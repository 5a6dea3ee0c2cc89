//! Serves DynamoDB from memory on a free port of the loopback interface. Prints the port.

use std::error::Error;

use dynoxide::Database;
use dynoxide::server::serve_on;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    serve_on(listener, Database::memory()?).await;
    Ok(())
}
