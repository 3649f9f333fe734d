//! Values that components have for each other: L18, L14.

use std::sync::Arc;

use taskgroup::lifecycle::{
    Component, ComponentState, Context, Lifecycle, PlanError, Provided, Provider,
};
use taskgroup::{BoxError, End};

use crate::support::{Diary, SECOND, errors, obedient, stopped};

type Pool = Arc<&'static str>;

/// A resource that writes down when it is opened and closed, and its value.
fn pool(diary: &Diary) -> (Component, Provided<Pool>) {
    let (opens, closes) = (diary.clone(), diary.clone());
    Component::shared(
        "database",
        async move |_ctx| {
            opens.write("opened");
            Ok(Arc::new("pool"))
        },
        async move |pool: Pool, _| {
            assert_eq!(Arc::strong_count(&pool), 1, "a user still has it");
            Ok(closes.write("closed"))
        },
    )
}

async fn worker(ctx: Context, pool: Pool) -> Result<(), BoxError> {
    assert_eq!(*pool, "pool");
    ctx.ready();
    ctx.stopping().await;
    tokio::time::sleep(SECOND).await;
    Ok(())
}

#[track_caller]
fn refused(lifecycle: &Lifecycle, message: &str) -> PlanError {
    let error = lifecycle.plan().unwrap_err();
    assert_eq!(error.to_string(), message);
    error
}

#[tokio::test(start_paused = true)]
async fn a_component_gets_what_it_uses_as_an_argument_and_is_ordered_by_that_alone() {
    let diary = Diary::default();
    let (database, pool) = pool(&diary);
    let log = diary.clone();
    let watched = Component::using(&pool).run("watched", async move |ctx, pool| {
        log.write(format!("watched has the {pool}"));
        ctx.ready();
        ctx.stopping().await;
        Ok(log.write("watched is gone"))
    });
    let lifecycle = Lifecycle::new("orders")
        .component(Component::using(&pool).run("worker", worker))
        .component(watched)
        .component(database);
    let plan = lifecycle.plan().unwrap().to_string();
    assert!(plan.contains("  1  database  resource"), "{plan}");
    assert!(plan.contains("after database"), "{plan}");
    let report = stopped(lifecycle).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), SECOND, "the database waits for the worker");
    let expected = [
        "opened",
        "watched has the pool",
        "watched is gone",
        "closed",
    ];
    assert_eq!(diary.lines(), expected);
    assert_eq!(pool.get(), None);
}

#[tokio::test(start_paused = true)]
async fn a_value_is_there_until_its_users_have_ended_and_taken_out_before_it_is_closed() {
    let (database, value) = pool(&Diary::default());
    let outside = value.clone();
    let user = Component::using(&value).run("user", async move |ctx, pool| {
        drop(pool);
        ctx.ready();
        ctx.stopping().await;
        tokio::time::sleep(SECOND).await;
        assert!(outside.get().is_some());
        Ok(())
    });
    let waits = tokio::spawn({
        let value = value.clone();
        async move { drop(value.wait().await) }
    });
    let report = stopped(Lifecycle::new("orders").component(user).component(database)).await;
    assert!(report.is_clean(), "{report}");
    waits.await.unwrap();
    assert_eq!((value.get(), value.name()), (None, "database"));
}

#[tokio::test(start_paused = true)]
async fn functions_and_closures_and_tuples_of_one_to_six_values_are_components() {
    let bound = Provided::<u16>::new("port");
    let limit = Provided::new("limit");
    let all = [limit.clone(), Provided::new("other")];
    async fn http(ctx: Context, (limit, port): (u32, Provider<u16>)) -> Result<(), BoxError> {
        port.set(8080 + u16::try_from(limit)?);
        ctx.ready();
        Ok(ctx.stopping().await)
    }
    let settings = (all[0].provider(), all[1].provider());
    let lifecycle = Lifecycle::new("orders")
        .component(
            Component::using(settings).job("settings", |_, (limit, other)| async move {
                limit.set("8".parse()?);
                Ok(other.set(9))
            }),
        )
        .component(Component::using((&limit, bound.provider())).run("http", http))
        .component(
            Component::using((&limit,)).job("one", async |_, (limit,)| Ok(assert_eq!(limit, 8))),
        )
        .component(
            Component::using(&all[..]).job("many", async |_, all| Ok(assert_eq!(all, [8, 9]))),
        )
        .component(Component::using((&limit, &bound, &limit)).job(
            "three",
            async |_, (limit, port, again)| {
                assert_eq!((limit, port, again), (8, 8088, "8".parse()?));
                Ok(())
            },
        ))
        .component(
            Component::using((&limit, &bound, &limit, &bound))
                .job("four", async |_, (a, b, c, d)| {
                    Ok(assert_eq!((a, b, c, d), (8, 8088, 8, 8088)))
                }),
        )
        .component(
            Component::using((&limit, &bound, &limit, &bound, ()))
                .job("five", async |_, (a, _, _, _, ())| Ok(assert_eq!(a, 8))),
        )
        .component(
            Component::using((&limit, &bound, &limit, &bound, (), (&limit, &limit)))
                .job("six", async |_, (.., (a, b))| Ok(assert_eq!(a + b, 16))),
        );
    let report = stopped(lifecycle).await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_resource_uses_values_and_shares_its_own() {
    let url = Provided::new("url");
    let settings =
        Component::using(url.provider()).job("settings", async |_, url| Ok(url.set("db")));
    let (database, pool) = Component::using(&url).shared(
        "database",
        async |_, url| Ok(format!("pool of {url}")),
        async |_, _| Ok(()),
    );
    let cache = Component::using(&pool).resource(
        "cache",
        async |_, pool| Ok(format!("cache of {pool}")),
        async |cache, _| Ok(assert_eq!(cache, "cache of pool of db")),
    );
    let lifecycle = Lifecycle::new("orders")
        .component(cache)
        .component(database);
    let report = stopped(lifecycle.component(settings)).await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_function_with_an_error_of_its_own_is_a_component() {
    async fn worker(ctx: Context, pool: Pool) -> anyhow::Result<()> {
        ctx.ready();
        anyhow::bail!("lost the {pool}")
    }
    async fn alone(ctx: Context) -> std::io::Result<()> {
        ctx.ready();
        Ok(ctx.stopping().await)
    }
    let (database, pool) = pool(&Diary::default());
    let report = Lifecycle::new("orders")
        .component(database)
        .component(Component::function("alone", alone))
        .component(Component::using(&pool).function("worker", worker))
        .run()
        .await
        .unwrap();
    assert_eq!(
        errors(&report),
        ["component `worker` failed: lost the pool"]
    );
}

#[test]
fn a_value_that_no_component_provides_is_refused_by_the_plan() {
    let pool = Provided::<Pool>::new("pool");
    let worker = Component::using(&pool).run("worker", worker);
    let lifecycle = Lifecycle::new("orders").component(worker);
    let message = "component `worker` uses `pool`, which no component provides";
    let error = refused(&lifecycle, message);
    assert!(error.is_unknown());
    assert_eq!(error.component(), Some("worker"));
}

#[test]
fn two_providers_of_one_value_are_refused_by_the_plan() {
    let port = Provided::<u16>::new("port");
    let http = |name| Component::using(port.provider()).job(name, async |_, _| Ok(()));
    let lifecycle = Lifecycle::new("orders")
        .component(http("a"))
        .component(http("b"));
    let error = refused(&lifecycle, "components `a` and `b` both provide `port`");
    assert!(error.is_duplicate());
    assert_eq!(error.component(), Some("b"));
}

#[test]
fn a_cycle_through_values_is_refused_by_the_plan() {
    let (a, b) = (Provided::<u8>::new("a"), Provided::<u8>::new("b"));
    let hen = Component::using((&a, b.provider())).job("hen", async |_, _| Ok(()));
    let egg = Component::using((&b, a.provider())).job("egg", async |_, _| Ok(()));
    let lifecycle = Lifecycle::new("orders").component(hen).component(egg);
    let message = "the components depend on each other in a cycle: `hen` → `egg` → `hen`";
    assert!(refused(&lifecycle, message).is_cycle());

    let own = Component::using((&a, a.provider())).job("own", async |_, _| Ok(()));
    let lifecycle = Lifecycle::new("orders").component(own);
    assert!(refused(&lifecycle, "component `own` depends on itself").is_cycle());
}

#[test]
fn a_component_that_is_both_named_and_used_is_in_the_plan_once() {
    let (database, pool) = pool(&Diary::default());
    let worker = Component::using((&pool, &pool)).run("worker", async |_, _| Ok(()));
    let worker = worker.after(["database", "log", "database"]);
    let lifecycle = Lifecycle::new("orders")
        .component(worker)
        .component(database);
    let plan = lifecycle.component(obedient("log")).plan().unwrap();
    let worker = plan
        .components()
        .find(|component| component.name() == "worker");
    let after: Vec<_> = worker.unwrap().after().collect();
    assert_eq!(after, ["database", "log"]);
}

#[tokio::test(start_paused = true)]
async fn a_component_that_is_ready_without_its_value_fails_with_the_name_of_the_value() {
    let port = Provided::<u16>::new("port");
    let http = Component::using(port.provider()).run("http", async |ctx, _port| {
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let user = Component::using(&port).run("user", async |_, _| unreachable!());
    let lifecycle = Lifecycle::new("orders").component(http).component(user);
    let report = lifecycle.run().await.unwrap();
    let message = "component `http` did not start: it was ready without having provided `port`";
    assert_eq!(errors(&report), [message]);
    assert_eq!(
        report.components[1].state,
        ComponentState::Ended(End::Skipped)
    );

    let job = Component::using(port.provider()).job("job", async |_, _| Ok(()));
    let report = Lifecycle::new("orders").component(job).run().await.unwrap();
    let message = "component `job` did not start: it was ready without having provided `port`";
    assert_eq!(errors(&report), [message]);
}

#[tokio::test(start_paused = true)]
async fn the_value_of_a_component_that_has_ended_well_is_there_until_the_end() {
    let (limit, level) = (Provided::new("limit"), Provided::new("level"));
    let outside = limit.clone();
    let load = Component::using(limit.provider()).job("load", async |_, limit| Ok(limit.set(8)));
    let probe = Component::using(level.provider()).run("probe", async |ctx, level| {
        level.set(3);
        Ok(ctx.ready())
    });
    // The probe has ended long before its user begins.
    let slow = Component::job("slow", async |_| Ok(tokio::time::sleep(SECOND).await));
    let user = Component::using((&limit, &level)).run("user", async move |ctx, values| {
        assert_eq!(values, (8, 3));
        ctx.ready();
        ctx.stopping().await;
        assert_eq!(outside.get(), Some(8));
        Ok(())
    });
    let lifecycle = Lifecycle::new("orders").component(load).component(slow);
    let lifecycle = lifecycle.component(probe.may_end());
    let report = stopped(lifecycle.component(user.after(["slow"]))).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((limit.get(), level.get()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_value_can_be_set_again_and_the_old_one_is_dropped() {
    let value = Provided::new("value");
    let shared = Arc::new(());
    let given = Arc::clone(&shared);
    let renew = Component::using(value.provider()).run("renew", async move |ctx, value| {
        for _ in 0..100 {
            value.set(Arc::clone(&given));
        }
        assert_eq!(Arc::strong_count(&given), 3);
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    assert!(
        stopped(Lifecycle::new("orders").component(renew))
            .await
            .is_clean()
    );
    assert!(value.get().is_none());
    assert_eq!(Arc::strong_count(&shared), 1);
}

#[tokio::test(start_paused = true)]
async fn the_clone_of_a_value_is_made_without_a_lock() {
    struct Renewed(Provider<Renewed>);
    impl Clone for Renewed {
        fn clone(&self) -> Self {
            // With the channel locked this would wait for itself.
            self.0.set(Self(self.0.clone()));
            Self(self.0.clone())
        }
    }
    let value = Provided::<Renewed>::new("value");
    let job = Component::using(value.provider()).job("job", async |_, value| {
        value.set(Renewed(value.clone()));
        Ok(())
    });
    let user = Component::using(&value).job("user", async |_, _| Ok(()));
    let lifecycle = Lifecycle::new("orders").component(job).component(user);
    let report = lifecycle.run().await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(value.get().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_value_whose_clone_panics_fails_its_user_and_no_other() {
    #[derive(Debug)]
    struct Bomb;
    impl Clone for Bomb {
        fn clone(&self) -> Self {
            panic!("no copies")
        }
    }
    let bomb = Provided::new("bomb");
    let job = Component::using(bomb.provider()).job("job", async |_, bomb| Ok(bomb.set(Bomb)));
    let user = Component::using(&bomb).job("user", async |_, _| Ok(()));
    let lifecycle = Lifecycle::new("orders").component(job).component(user);
    let report = lifecycle.run().await.unwrap();
    assert_eq!(errors(&report), ["component `user` panicked: no copies"]);
}

struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("bang");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_destructor_that_panics_does_not_keep_other_values_in_or_a_resource_open() {
    let (bomb, other) = (Provided::<Bomb>::new("bomb"), Provided::<u8>::new("other"));
    let diary = Diary::default();
    let closed = diary.clone();
    let database = Component::using((bomb.provider(), other.provider())).resource(
        "database",
        async |_, (bomb, other)| {
            bomb.set(Bomb);
            Ok(other.set(1))
        },
        async move |(), _| Ok(closed.write("closed")),
    );
    let report = stopped(Lifecycle::new("orders").component(database)).await;
    assert_eq!(diary.lines(), ["closed"], "{report}");
    assert_eq!(other.get(), None);
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_a_provider_is_not_one_of_those_that_were_about_to_use_it() {
    let port = Provided::<u16>::new("port");
    let http = Component::using(port.provider()).run("http", async |ctx, port| {
        port.set(8080);
        ctx.ready();
        Err("the port is gone".into())
    });
    let user = Component::using(&port).run("user", async |ctx, _| {
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let lifecycle = Lifecycle::new("orders").component(http).component(user);
    let report = lifecycle.run().await.unwrap();
    assert_eq!(report.errors.len(), 1, "{report}");
    assert_eq!(report.errors[0].component, "http");
}

#[tokio::test(start_paused = true)]
async fn a_nested_lifecycle_uses_values_from_outside_and_has_its_own_for_others() {
    let diary = Diary::default();
    let (database, pool) = pool(&diary);
    let rates = Provided::new("rates");
    let (log, seen) = (diary.clone(), diary.clone());
    let ledger = Component::using((&pool, rates.provider())).run(
        "ledger",
        async move |ctx, (pool, rates)| {
            rates.set(format!("rates in the {pool}"));
            ctx.ready();
            ctx.stopping().await;
            drop(pool);
            Ok(log.write("ledger is gone"))
        },
    );
    let billing = Lifecycle::new("billing").component(ledger);
    assert!(
        billing.plan().unwrap_err().is_unknown(),
        "alone it has no database"
    );
    let shop = Component::using(&rates).run("shop", async move |ctx, rates| {
        seen.write(rates);
        ctx.ready();
        ctx.stopping().await;
        Ok(seen.write("shop is gone"))
    });
    let lifecycle = Lifecycle::new("orders")
        .budget(60 * SECOND)
        .component(shop)
        .component(Component::lifecycle(billing))
        .component(database);
    let report = stopped(lifecycle).await;
    assert!(report.is_clean(), "{report}");
    let expected = [
        "opened",
        "rates in the pool",
        "shop is gone",
        "ledger is gone",
        "closed",
    ];
    assert_eq!(diary.lines(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_leaves_no_value_behind() {
    let (database, pool) = pool(&Diary::default());
    let lifecycle = Lifecycle::new("orders").component(database);
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    assert!(pool.get().is_some());
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    assert!(pool.get().is_none());
}
