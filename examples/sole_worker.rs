//! A program that is the only one of its kind at work, and protects what it writes.
//!
//! ```sh
//! export SYSTOLE_DATABASE_URL=$(systole embedded url)
//! systole migrate
//! cargo run --example sole_worker nightly-report      # in two terminals: the second is refused
//! ```

#![allow(clippy::print_stdout)] // a program talks to its user

use std::process::ExitCode;

use systole::{Coordinator, Lease, RunId};
use tokio_postgres::{Client, NoTls};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let run_id: RunId = std::env::args().nth(1).unwrap_or_else(|| "nightly-report".to_owned()).parse()?;
    let url = std::env::var("SYSTOLE_DATABASE_URL")?;

    let coordinator = Coordinator::connect(&url).await?;
    let lease = coordinator.acquire(&run_id).await?;
    println!("run {run_id}: attempt {} with fence {}", lease.attempt(), lease.fence());

    // There is no guard behind a library lease: whoever loses it has to stop by itself, and at once.
    let worked = tokio::select! {
        worked = work(&url, &lease) => worked,
        loss = lease.lost() => Err(format!("the run was lost: {loss:?}").into()),
    };
    match &worked {
        Ok(()) => lease.complete().await?,
        Err(_) => lease.fail().await?,
    }
    worked
}

async fn work(url: &str, lease: &Lease) -> Result<(), Failure> {
    let (mut client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE IF NOT EXISTS report (line text)").await?;
    for line in 1..=10 {
        write(&mut client, lease, line).await?;
        lease.progress(line);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Ok(())
}

/// One transaction of ours. `systole.fence` comes last: it commits only if nobody has taken the run over.
async fn write(client: &mut Client, lease: &Lease, line: i64) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    transaction.execute("INSERT INTO report VALUES ($1)", &[&format!("line {line}")]).await?;
    transaction.execute("SELECT systole.fence($1, $2)", &[&lease.run_id().as_str(), &lease.fence().0]).await?;
    transaction.commit().await?;
    Ok(())
}
