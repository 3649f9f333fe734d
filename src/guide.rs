//! The pages of `docs/`: guides, recipes, production, and why it is built like this.
//!
//! They are part of the documentation alone, and cost a build nothing. All code in them is compiled.
//!
//! | you want to | read | minutes |
//! |---|---|---|
//! | write an application | [`lifecycle`] | 15 |
//! | write a library | [`library`] | 3 |
//! | know what happens to each client at a stop | [`servers`] | 10 |
//! | take the sockets over without a gap | [`restart`] | 5 |
//! | drain a queue | [`pipelines`] | 12 |
//! | test a stop | [`testing`] | 5 |
//! | see one shutdown on a time line | [`shutdown`] | 5 |
//! | use it with another library or framework | [`recipes`] | 1 each |
//! | deploy it | [`production`] | 10 |
//! | look up a word | [`words`] | 3 |
//! | compare it with other crates | [`compare`] | 5 |
//! | know why it is built like this | [`design`] | 30 |
//! | see the figures | [`performance`] | 25 |
//! | see the need behind each part | [`requirements`] | – |
//! | see what Tokio, hyper, axum and tonic do | [`upstream`] | 4 |
//! | see what has changed | [`changelog`] | – |

/// Makes a module of a page. The links of a page lead to files, for readers of the repository. Here the same names
/// lead to modules and to the sources, because the first definition of a name counts.
macro_rules! pages {
    ($($(#[$attribute:meta])* $name:ident = $file:literal,)*) => {$(
        $(#[$attribute])*
        pub mod $name {
            //! [changelog]: crate::guide::changelog
            //! [compare]: crate::guide::compare
            //! [design]: crate::guide::design
            //! [library]: crate::guide::library
            //! [lifecycle]: crate::guide::lifecycle
            //! [performance]: crate::guide::performance
            //! [pipelines]: crate::guide::pipelines
            //! [production]: crate::guide::production
            //! [recipes]: crate::guide::recipes
            //! [requirements]: crate::guide::requirements
            //! [restart]: crate::guide::restart
            //! [servers]: crate::guide::servers
            //! [servers#what-to-set-around-it]: crate::guide::servers#what-to-set-around-it
            //! [shutdown]: crate::guide::shutdown
            //! [testing]: crate::guide::testing
            //! [upstream]: crate::guide::upstream
            //! [upstream#tonics-own-settings]: crate::guide::upstream#tonics-own-settings
            //! [words]: crate::guide::words
            //! [deploy]: https://docs.rs/crate/taskgroup/latest/source/deploy/
            //! [deploy/grafana]: https://docs.rs/crate/taskgroup/latest/source/deploy/grafana/
            //! [deploy/haproxy/haproxy.cfg]: https://docs.rs/crate/taskgroup/latest/source/deploy/haproxy/haproxy.cfg
            //! [deploy/kubernetes/orders.yaml]: https://docs.rs/crate/taskgroup/latest/source/deploy/kubernetes/orders.yaml
            //! [deploy/nginx/orders.conf]: https://docs.rs/crate/taskgroup/latest/source/deploy/nginx/orders.conf
            //! [deploy/prometheus]: https://docs.rs/crate/taskgroup/latest/source/deploy/prometheus/
            //! [deploy/systemd/orders.service]: https://docs.rs/crate/taskgroup/latest/source/deploy/systemd/orders.service
            //! [examples/consumer]: https://docs.rs/crate/taskgroup/latest/source/examples/
            //! [examples/gateway.rs]: https://docs.rs/crate/taskgroup/latest/source/examples/gateway.rs
            //! [examples/inherited.rs]: https://docs.rs/crate/taskgroup/latest/source/examples/inherited.rs
            //! [examples/restart.rs]: https://docs.rs/crate/taskgroup/latest/source/examples/restart.rs
            //! [picture]: https://docs.rs/crate/taskgroup/latest/source/docs/shutdown.svg
            //! [tests/gateway.rs]: https://docs.rs/crate/taskgroup/latest/source/tests/gateway.rs
            //! [tests/restart]: https://docs.rs/crate/taskgroup/latest/source/tests/restart/
            //! [tests/upstream/main.rs]: https://docs.rs/crate/taskgroup/latest/source/tests/upstream/main.rs
            //!
            #![doc = include_str!($file)]
        }
    )*};
}

pages! {
    changelog = "../CHANGELOG.md",
    compare = "../docs/compare.md",
    design = "../docs/design.md",
    library = "../docs/library.md",
    lifecycle = "../docs/lifecycle.md",
    performance = "../docs/performance.md",
    pipelines = "../docs/pipelines.md",
    production = "../docs/production.md",
    // The package `docs/recipes` compiles it, with the libraries that it is about.
    #[cfg(not(doctest))]
    recipes = "../docs/recipes.md",
    requirements = "../docs/requirements.md",
    restart = "../docs/restart.md",
    servers = "../docs/servers.md",
    // The picture of the page stands in it as markup, since docs.rs hosts no picture of its own.
    #[doc = include_str!("../docs/shutdown.svg")]
    #[doc = ""]
    shutdown = "../docs/shutdown.md",
    testing = "../docs/testing.md",
    upstream = "../docs/upstream.md",
    words = "../docs/words.md",
}
