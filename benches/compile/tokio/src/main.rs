use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
type BoxError = Box<dyn std::error::Error + Send + Sync>;
#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let token = CancellationToken::new();
    let mut set = JoinSet::new();
    for n in 0..3_u64 {
        let token = token.clone();
        set.spawn(async move {
            let work = tokio::time::sleep(Duration::from_millis(n));
            token.run_until_cancelled(work).await;
            Ok::<(), BoxError>(())
        });
    }
    token.cancel();
    let mut first = None;
    while let Some(end) = set.join_next().await {
        let end = end.map_err(BoxError::from).and_then(|end| end);
        if let Err(error) = end {
            token.cancel();
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(()), Err)
}
