//! What the types promise to the compiler.

use std::fmt::Debug;

use taskgroup::group::{Builder, IsolatedTask, JoinError, Panic, Running, SpawnError, Task};
use taskgroup::{
    BoxError, BuildError, Cancelled, Cause, End, Spawner, TaskError, TaskGroup, TaskHandle,
};

fn everything<T: Send + Sync + Unpin + Debug>() {}
fn shared<T: Send + Sync + Debug>() {}
fn send<T: Send>(_: &T) {}

#[test]
fn public_types_are_send_sync_and_debug() {
    everything::<TaskGroup>();
    everything::<TaskGroup<anyhow::Error>>();
    everything::<TaskGroup<std::io::Error>>();
    everything::<Spawner>();
    everything::<Builder>();
    everything::<BuildError>();
    everything::<TaskHandle<()>>();
    everything::<JoinError>();
    everything::<TaskError>();
    everything::<End>();
    everything::<Panic>();
    everything::<Cause>();
    everything::<Running>();
    everything::<Cancelled>();
    shared::<SpawnError<std::future::Ready<()>>>();
    shared::<Task<'_>>();
    shared::<IsolatedTask<'_>>();
}

#[test]
fn a_group_of_errors_that_are_not_sync_is_send_and_sync() {
    #[derive(Debug)]
    struct NotSync(#[expect(dead_code, reason = "it is there to be no Sync")] std::cell::Cell<u8>);
    impl std::fmt::Display for NotSync {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("not sync")
        }
    }
    impl std::error::Error for NotSync {}
    everything::<TaskGroup<NotSync>>();
}

#[tokio::test]
async fn the_futures_of_a_group_are_send() {
    let mut group = TaskGroup::new();
    send(&group.spawn_when_ready(async { Ok(()) }));
    send(&group.wait());
    send(&group.shutdown(std::time::Duration::ZERO));
}

#[tokio::test]
async fn an_error_of_a_group_is_an_error_like_any_other() {
    async fn service() -> Result<(), BoxError> {
        let mut group = TaskGroup::new();
        group.spawn(async { Err::<(), _>("no quorum".into()) });
        group.wait().await?;
        Ok(())
    }
    async fn report() -> anyhow::Result<()> {
        let mut group = TaskGroup::<anyhow::Error>::reports();
        group.spawn(async { Err::<(), _>(anyhow::anyhow!("no quorum")) });
        group.wait().await?;
        Ok(())
    }
    assert!(format!("{:#}", service().await.unwrap_err()).ends_with("no quorum"));
    assert!(format!("{:#}", report().await.unwrap_err()).ends_with("no quorum"));
}
