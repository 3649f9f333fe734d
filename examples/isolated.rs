//! How do I handle messages whose failure must not stop the others?
//!
//! An isolated task is a member of its group: it is waited for and told to stop. Its error, or its panic,
//! goes to its handle and not to the group. Run it with `cargo run --example isolated`.

use taskgroup::{BoxError, TaskGroup};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut group = TaskGroup::new();
    let messages = ["7", "x", "11"];
    let handles = messages.map(|message| {
        let handler = async move { Ok(message.parse::<u32>()?) };
        group
            .task(format!("message {message}"))
            .isolated()
            .spawn(handler)
    });

    for handle in handles {
        match handle.await? {
            Ok(number) => println!("handled {number}"),
            Err(error) => println!("sent to the dead letters: {error}"),
        }
    }
    group.wait().await?;
    Ok(())
}
