use std::time::Duration;
use taskgroup::{BoxError, Exit, Sidecar, TaskGroup};

#[tokio::main]
async fn main() -> Exit {
    let mut group = TaskGroup::new();
    for n in 0..3_u64 {
        let token = group.token().clone();
        group.spawn(async move {
            let work = tokio::time::sleep(Duration::from_millis(n));
            token.run_until_cancelled(work).await;
            Ok(())
        });
    }
    let server = Sidecar::new("server").grace(Duration::from_secs(1));
    let serving = server.serve(group.token(), async |stop| {
        stop.await;
        Ok::<_, BoxError>(())
    });
    group.spawn(serving);
    group.cancel();
    Exit::from(group.wait().await)
}
