use tokio_util::sync::CancellationToken;
#[tokio::main]
async fn main() {
    let token = CancellationToken::new();
    let child = token.clone();
    let task = tokio::spawn(async move { child.cancelled().await });
    token.cancel();
    let _ = task.await;
}
