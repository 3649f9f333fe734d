//! The checker of deployment files. Each rule has a good file, and a bad one that differs in one line.

#![cfg(feature = "deploy")]

use std::fs;
use std::time::Duration;

use taskgroup::deploy::{Checker, Findings, Severity};
use taskgroup::lifecycle::{Budget, Component, Lifecycle, Plan};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn plan(budget: Budget) -> Plan {
    let http = Component::new("http", async |ctx| {
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let http = http.start_timeout(secs(30));
    Lifecycle::new("orders")
        .budget(budget)
        .component(http)
        .plan()
        .expect("a plan")
}

/// A budget of 28 s with a lame duck of 5 s.
fn checker() -> Checker {
    Checker::new(&plan(Budget::kubernetes()))
}

/// 28 s without a lame duck.
fn without_lame_duck() -> Checker {
    Checker::new(&plan(Budget::new(secs(28))))
}

const DEPLOYMENT: &str = include_str!("../deploy/kubernetes/orders.yaml");
const UNIT: &str = include_str!("../deploy/systemd/orders.service");
const HAPROXY: &str = include_str!("../deploy/haproxy/haproxy.cfg");
const NGINX: &str = include_str!("../deploy/nginx/orders.conf");
const DOCKERFILE: &str = include_str!("../deploy/docker/Dockerfile");

/// Checks that `good` does not break the rule, and that it does after one line has been replaced. Returns the line of the finding.
#[track_caller]
fn differs(
    checker: &Checker,
    id: &str,
    name: &str,
    good: &str,
    (from, to): (&str, &str),
    found: &str,
) {
    assert_eq!(good.matches(from).count(), 1, "one line with `{from}`");
    let bad = good.replace(from, to);
    let findings = |text: &str| -> Vec<_> {
        let findings = checker.check([(name, text)]);
        findings
            .iter()
            .filter(|finding| finding.id() == id)
            .cloned()
            .collect()
    };
    assert_eq!(findings(good), [], "the good file");
    let bad = findings(&bad);
    let [finding] = bad.as_slice() else {
        panic!("one finding of {id} and not {bad:?}");
    };
    assert!(finding.to_string().contains(found), "{finding}");
    assert_eq!(finding.file().to_str(), Some(name));
}

#[test]
fn the_files_in_deploy_have_no_errors() {
    let systemd = Checker::new(&plan(Budget::systemd()));
    for (checker, name, text) in [
        (checker(), "orders.yaml", DEPLOYMENT),
        (systemd, "orders.service", UNIT),
        (checker(), "haproxy.cfg", HAPROXY),
        (checker(), "orders.conf", NGINX),
        (checker(), "Dockerfile", DOCKERFILE),
    ] {
        let findings = checker.check([(name, text)]);
        assert!(!findings.has_errors(), "{findings}");
    }
}

#[test]
fn d01_the_stop_fits() {
    let bad = ("PeriodSeconds: 30\n", "PeriodSeconds: 28\n");
    differs(
        &checker(),
        "D01",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "28s + 1s = 29s is more than 28s",
    );
    let bad = ("TimeoutStopSec=90", "TimeoutStopSec=1min 20s");
    let systemd = Checker::new(&plan(Budget::systemd()));
    differs(
        &systemd,
        "D01",
        "a.service",
        UNIT,
        bad,
        "85s + 1s = 86s is more than 80s",
    );
}

#[test]
fn d01_the_hook_of_a_pod_counts() {
    let pod = "kind: Pod\nspec:\n  terminationGracePeriodSeconds: 34\n  containers:\n    - name: a\n      lifecycle:\n        preStop:\n          sleep:\n            seconds: 5\n";
    differs(
        &checker(),
        "D01",
        "a.yaml",
        pod,
        ("seconds: 5\n", "seconds: 6\n"),
        "6s + 28s + 1s = 35s is more than 34s",
    );
}

#[test]
fn d01_the_default_of_a_platform_counts() {
    let compose = "services:\n  orders:\n    build: .\n    stop_grace_period: 30s\n  db:\n    image: postgres\n";
    differs(
        &checker(),
        "D01",
        "compose.yaml",
        compose,
        ("    stop_grace_period: 30s\n", "    init: false\n"),
        "Docker (orders)'s stop_grace_period by default",
    );
    let fly = "app = \"orders\"\nkill_timeout = 30\n";
    differs(
        &checker(),
        "D01",
        "fly.toml",
        fly,
        ("kill_timeout = 30", "kill_timeout = 5"),
        "is more than 5s",
    );
    let nomad = "task \"orders\" {\n  kill_timeout = \"30s\"\n}\n";
    differs(
        &checker(),
        "D01",
        "orders.nomad",
        nomad,
        ("\"30s\"", "\"20s\""),
        "is more than 20s",
    );
    let ecs = "{\"containerDefinitions\": [{\"name\": \"orders\",\n\"stopTimeout\": 30}]}";
    differs(
        &checker(),
        "D01",
        "task.json",
        ecs,
        ("\"stopTimeout\": 30", "\"stopTimeout\": 20"),
        "ECS",
    );
}

#[test]
fn d02_the_number_handed_over_is_the_one_that_counts() {
    let bad = ("value: \"30\"", "value: \"60\"");
    differs(
        &checker(),
        "D02",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "is 60s, and the process has 30s - 0s = 30s",
    );
    let bad = ("TIMEOUT_STOP_SEC=90", "TIMEOUT_STOP_SEC=100");
    differs(
        &checker(),
        "D02",
        "a.service",
        UNIT,
        bad,
        "TIMEOUT_STOP_SEC is",
    );
}

#[test]
fn d02_the_time_of_the_hook_may_have_a_variable_of_its_own() {
    let pod = "kind: Pod\nspec:\n  terminationGracePeriodSeconds: 34\n  containers:\n    - name: a\n      env:\n        - name: TERMINATION_GRACE_PERIOD_SECONDS\n          value: \"34\"\n        - name: PRE_STOP_SECONDS\n          value: \"5\"\n      lifecycle:\n        preStop:\n          sleep:\n            seconds: 5\n";
    differs(
        &checker(),
        "D02",
        "a.yaml",
        pod,
        ("value: \"5\"", "value: \"4\""),
        "TERMINATION_GRACE_PERIOD_SECONDS is 34s with PRE_STOP_SECONDS 4s, and the process has 34s - 5s = 29s",
    );
}

#[test]
fn d03_the_stop_is_noticed() {
    let bad = ("failureThreshold: 2\n", "failureThreshold: 3\n");
    differs(
        &checker(),
        "D03",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "preStop 0s + lame duck 5s = 5s is less than the 7s",
    );
    let good = "backend b\n  option redispatch\n  server a 10.0.0.1:80 check inter 1s fall 3\n";
    differs(
        &checker(),
        "D03",
        "a.cfg",
        good,
        ("fall 3", "fall 6"),
        "the 6s after which HAProxy notices",
    );
}

#[test]
fn d03_a_stop_that_nobody_waits_for_is_a_warning_where_the_time_is_assumed() {
    let findings =
        without_lame_duck().check([("a.yaml", "kind: Pod\nspec:\n  containers:\n    - name: a\n")]);
    let found: Vec<_> = findings
        .iter()
        .filter(|finding| finding.id() == "D03")
        .collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity(), Severity::Warning);
    let assumed: Vec<_> = findings.assumptions().collect();
    assert_eq!(
        assumed,
        ["the endpoint controller of `without a name` notices a stop after 5s"]
    );
}

const HOOKED: &str = "\
kind: Pod
metadata:
  name: orders
  labels:
    app: orders
spec:
  terminationGracePeriodSeconds: 60
  containers:
    - name: orders
      image: orders:1
      lifecycle:
        preStop:
          sleep:
            seconds: 0
";

#[test]
fn d04_there_is_one_wait() {
    differs(
        &checker(),
        "D04",
        "a.yaml",
        HOOKED,
        ("seconds: 0\n", "seconds: 5\n"),
        "add up to 10s",
    );
}

#[test]
fn d05_requests_finish() {
    let good = NGINX.replace("proxy_read_timeout 60s", "proxy_read_timeout 20s");
    differs(
        &checker(),
        "D05",
        "a.conf",
        &good,
        ("proxy_read_timeout 20s", "proxy_read_timeout 40s"),
        "is less than 40s",
    );
    let asked = checker()
        .slowest_request(secs(90))
        .check([("a.yaml", DEPLOYMENT)]);
    assert!(asked.iter().any(|finding| finding.id() == "D05"), "{asked}");
}

#[test]
fn d06_the_balancer_closes_idle_connections_first() {
    let checker = checker().idle_timeout(secs(75));
    let bad = ("keepalive_timeout 60s", "keepalive_timeout 65s");
    differs(
        &checker,
        "D06",
        "a.conf",
        NGINX,
        bad,
        "75s, is less than 80s",
    );
    let good = "backend b\n  server a 10.0.0.1:80 pool-purge-delay 5s\n";
    differs(
        &checker,
        "D06",
        "a.cfg",
        good,
        ("delay 5s", "delay 25s"),
        "HAProxy keeps an idle connection for 75s",
    );
}

#[test]
fn d07_a_header_timeout_does_not_close_idle_connections() {
    let checker = checker().header_timeout_between_requests(secs(30));
    let good = NGINX.replace("keepalive_timeout 60s", "keepalive_timeout 20s");
    let bad = ("keepalive_timeout 20s", "keepalive_timeout 60s");
    differs(
        &checker,
        "D07",
        "a.conf",
        &good,
        bad,
        "runs between requests",
    );
}

#[test]
fn d08_the_mesh_outlives_the_service() {
    let pod = "\
kind: Pod
metadata:
  name: orders
  annotations:
    sidecar.istio.io/inject: \"true\"
    proxy.istio.io/config: '{terminationDrainDuration: 30s}'
spec:
  containers:
    - name: orders
";
    let bad = ("Duration: 30s", "Duration: 20s");
    differs(
        &checker(),
        "D08",
        "a.yaml",
        pod,
        bad,
        "drains for 20s, and the service needs 28s",
    );
    let pod = HOOKED.replace("  labels:\n", "  annotations:\n    linkerd.io/inject: enabled\n    config.linkerd.io/shutdown-grace-period: 60s\n    config.alpha.linkerd.io/proxy-wait-before-exit-seconds: \"1\"\n  labels:\n");
    let bad = ("seconds: \"1\"", "seconds: \"0\"");
    differs(
        &checker(),
        "D08",
        "a.yaml",
        &pod,
        bad,
        "waits for 0s before it stops",
    );
}

#[test]
fn d08_a_native_sidecar_needs_nothing() {
    let pod = "\
kind: Pod
metadata:
  annotations:
    sidecar.istio.io/inject: \"true\"
spec:
  initContainers:
    - name: istio-proxy
      restartPolicy: Always
  containers:
    - name: orders
";
    let findings = checker().check([("a.yaml", pod)]);
    assert!(
        !findings.iter().any(|finding| finding.id() == "D08"),
        "{findings}"
    );
}

#[test]
fn d09_liveness_is_not_readiness() {
    let bad = ("path: /livez", "path: /readyz");
    differs(
        &checker(),
        "D09",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "the liveness probe asks `/readyz`",
    );
}

#[test]
fn d10_the_signal_arrives() {
    let bad = (
        "ENTRYPOINT [\"/usr/local/bin/orders\"]",
        "ENTRYPOINT /usr/local/bin/orders",
    );
    differs(
        &checker(),
        "D10",
        "Dockerfile",
        DOCKERFILE,
        bad,
        "`sh -c` keeps the signal to itself",
    );
    let bad = ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGUSR1");
    differs(
        &checker(),
        "D10",
        "Dockerfile",
        DOCKERFILE,
        bad,
        "SIGUSR1 is sent",
    );
    let bad = ("KillSignal=SIGTERM", "KillSignal=SIGHUP");
    differs(
        &checker(),
        "D10",
        "a.service",
        UNIT,
        bad,
        "SIGHUP is sent, and the service has registered SIGINT and SIGTERM",
    );
    let bad = ("ExecStart=/usr", "ExecStart=/bin/sh -c /usr");
    differs(
        &checker(),
        "D10",
        "a.service",
        UNIT,
        bad,
        "keeps the signal to itself",
    );
}

#[test]
fn d11_the_hook_can_run() {
    let good = HOOKED.replace(
        "sleep:\n            seconds: 0",
        "exec:\n            command: [\"sleep\", \"0\"]",
    );
    differs(
        &checker(),
        "D11",
        "a.yaml",
        &good,
        ("image: orders:1", "image: gcr.io/distroless/cc"),
        "the hook runs `sleep`",
    );
}

#[test]
fn d12_a_rollout_keeps_capacity() {
    let bad = ("maxUnavailable: 0", "maxUnavailable: 1");
    differs(
        &checker(),
        "D12",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "3 replicas - 1 unavailable leave 2",
    );
    let bad = ("maxSurge: 1", "maxSurge: 0");
    differs(
        &checker(),
        "D12",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "let no rollout begin",
    );
    let bad = ("type: RollingUpdate", "type: Recreate");
    differs(
        &checker(),
        "D12",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "Recreate stops all pods",
    );
}

#[test]
fn d13_a_node_can_be_drained() {
    let bad = ("  maxUnavailable: 1\n", "  minAvailable: 3\n");
    differs(
        &checker(),
        "D13",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "minAvailable 3 of 3 replicas",
    );
    let bad = (
        "  maxUnavailable: 1\n  selector:\n    matchLabels:\n      app: orders",
        "  maxUnavailable: 1\n  selector:\n    matchLabels:\n      app: other",
    );
    differs(
        &checker(),
        "D13",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "matches no pod",
    );
}

#[test]
fn d14_the_platform_allows_it() {
    let ecs = "{\"requiresCompatibilities\": [\"FARGATE\"], \"containerDefinitions\": [{\n\"stopTimeout\": 120}]}";
    differs(
        &checker(),
        "D14",
        "task.json",
        ecs,
        ("120", "121"),
        "the most of Fargate",
    );
    let fly = "kill_timeout = 300\n";
    differs(
        &checker(),
        "D14",
        "fly.toml",
        fly,
        ("300", "301"),
        "the most of Fly",
    );
    let bad = ("PeriodSeconds: 30\n", "PeriodSeconds: 601\n");
    differs(
        &checker(),
        "D14",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "waits for 10min",
    );
    let node = "kind: KubeletConfiguration\nshutdownGracePeriod: 60s\nshutdownGracePeriodCriticalPods: 10s\n";
    differs(
        &checker(),
        "D14",
        "kubelet.yaml",
        node,
        ("Period: 60s", "Period: 30s"),
        "29s is more than 20s",
    );
}

#[test]
fn d15_the_watchdog_comes_first() {
    let checker = checker().watchdog(secs(35));
    let good = DEPLOYMENT.replace("PeriodSeconds: 30\n", "PeriodSeconds: 40\n");
    differs(
        &checker,
        "D15",
        "a.yaml",
        &good,
        ("PeriodSeconds: 40\n", "PeriodSeconds: 35\n"),
        "the watchdog fires after 35s",
    );
}

#[test]
fn d16_repeated_signals_do_no_harm() {
    let bad = ("KillMode=mixed", "KillMode=control-group");
    differs(&checker(), "D16", "a.service", UNIT, bad, "more than once");
    let heroku = ("Procfile", "web: /orders\n");
    assert!(
        checker()
            .check([heroku])
            .iter()
            .any(|finding| finding.id() == "D16")
    );
    let calm = checker().second_signal_forces(false).check([heroku]);
    assert!(!calm.iter().any(|finding| finding.id() == "D16"), "{calm}");
}

#[test]
fn d17_the_unit_waits() {
    let bad = ("KillMode=mixed", "KillMode=process");
    differs(
        &checker(),
        "D17",
        "a.service",
        UNIT,
        bad,
        "leaves processes behind",
    );
    let bad = ("Type=notify\n", "Type=notify-reload\n");
    differs(
        &checker(),
        "D17",
        "a.service",
        UNIT,
        bad,
        "needs systemd 253",
    );
    let bad = ("StateDirectory=orders", "ExecStop=/bin/kill $MAINPID");
    differs(
        &checker(),
        "D17",
        "a.service",
        UNIT,
        bad,
        "signals what is left when",
    );
    let bad = ("TimeoutStartSec=120", "TimeoutStartSec=10");
    differs(
        &checker(),
        "D17",
        "a.service",
        UNIT,
        bad,
        "less than the start may take, 30s",
    );
    let bad = ("StateDirectory=orders", "WatchdogSec=5");
    differs(
        &checker().longest_block(secs(3)),
        "D17",
        "a.service",
        UNIT,
        bad,
        "less than 2 × 3s",
    );
}

#[test]
fn d18_the_balancer_lets_requests_finish() {
    let bad = (
        "8080 check port 9090",
        "8080 on-marked-down shutdown-sessions check port 9090",
    );
    differs(
        &checker(),
        "D18",
        "a.cfg",
        HAPROXY,
        bad,
        "cuts the requests of the drain",
    );
    differs(
        &checker(),
        "D18",
        "a.cfg",
        HAPROXY,
        ("    option redispatch\n", "\n"),
        "goes to the server that refused",
    );
    differs(
        &checker(),
        "D18",
        "a.cfg",
        HAPROXY,
        ("retries 3", "retries 0"),
        "a refused request is lost",
    );
    differs(
        &checker(),
        "D18",
        "a.cfg",
        HAPROXY,
        ("hard-stop-after 60s", "hard-stop-after 30s"),
        "hard-stop-after 30s is less than",
    );
    let image = "FROM nginx:1\nSTOPSIGNAL SIGQUIT\n";
    differs(
        &checker(),
        "D18",
        "Dockerfile",
        image,
        ("SIGQUIT", "SIGTERM"),
        "the fast stop of nginx",
    );
}

#[test]
fn d19_deregistration_and_start_have_time() {
    let bad = ("failureThreshold: 60", "failureThreshold: 10");
    differs(
        &checker(),
        "D19",
        "a.yaml",
        DEPLOYMENT,
        bad,
        "allows 2s × 10 = 20s, and the start may take 30s",
    );
    let ingress = "kind: Ingress\nmetadata:\n  annotations:\n    alb.ingress.kubernetes.io/target-group-attributes: deregistration_delay.timeout_seconds=60\n";
    let slow = checker().slowest_request(secs(60));
    differs(
        &slow,
        "D19",
        "a.yaml",
        ingress,
        ("seconds=60", "seconds=30"),
        "drops connections after 30s",
    );
    let ecs = "{\"containerDefinitions\": [{\"stopTimeout\": 30}]}";
    assert!(
        checker()
            .check([("task.json", ecs)])
            .to_string()
            .contains("D19: ECS deregisters before")
    );
    assert!(
        !without_lame_duck()
            .check([("task.json", ecs)])
            .to_string()
            .contains("D19")
    );
}

#[test]
fn d20_the_stop_is_scraped() {
    let good =
        "kind: ServiceMonitor\nspec:\n  endpoints:\n    - port: metrics\n      interval: 2s\n";
    differs(
        &checker(),
        "D20",
        "a.yaml",
        good,
        ("interval: 2s", "interval: 15s"),
        "a scrape every 15s may miss the stop",
    );
    let good = "global:\n  scrape_interval: 2s\nscrape_configs:\n  - job_name: orders\n";
    differs(
        &checker(),
        "D20",
        "prometheus.yml",
        good,
        ("interval: 2s", "interval: 30s"),
        "a scrape every 30s",
    );
}

#[test]
fn a_template_that_is_not_rendered_is_refused_by_name() {
    let findings =
        checker().check([("chart/orders.yaml", "kind: Pod\nspec: {{ .Values.spec }}\n")]);
    let first = findings.to_string();
    assert!(
        first
            .starts_with("chart/orders.yaml:2: error D00: this is a template that is not rendered"),
        "{first}"
    );
}

#[test]
fn a_file_of_an_unknown_format_and_invalid_yaml_are_refused_by_name() {
    let findings = checker().check([("notes.txt", "hello"), ("a.yaml", "a: [1\nb: {")]);
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 2, "{findings}");
    assert!(lines[0].starts_with("a.yaml:"), "{findings}");
    assert!(
        lines[0].contains("D00: this is not valid YAML"),
        "{findings}"
    );
    assert!(
        lines[1].starts_with("notes.txt:1: error D00: the format of this file is unknown"),
        "{findings}"
    );
}

#[test]
fn a_finding_names_the_line_in_its_file() {
    let bad = DEPLOYMENT.replace("PeriodSeconds: 30\n", "PeriodSeconds: 28\n");
    let line = bad
        .lines()
        .position(|line| line.contains("PeriodSeconds: 28"))
        .unwrap()
        + 1;
    let findings: Findings = checker().check([("a.yaml", &bad)]);
    let found = findings
        .iter()
        .find(|finding| finding.id() == "D01")
        .unwrap();
    assert_eq!(found.line(), line);
    assert_eq!(
        found.change(),
        "set terminationGracePeriodSeconds to 29s or shorten the budget"
    );
}

/// The numbers in the files, in the presets and on the page are one set.
#[test]
fn the_files_the_presets_and_the_page_have_the_same_numbers() {
    let page = fs::read_to_string("docs/production.md").unwrap();
    for (name, budget) in [
        ("kubernetes", Budget::kubernetes()),
        ("systemd", Budget::systemd()),
        ("docker", Budget::docker()),
        ("ecs", Budget::ecs()),
        ("cloud_run", Budget::cloud_run()),
        ("heroku", Budget::heroku()),
        ("fly", Budget::fly()),
        ("nomad", Budget::nomad()),
    ] {
        let (_, limit) = budget.platform_limit().unwrap();
        let (total, lame_duck) = (budget.total().as_secs(), budget.lame_duck_time().as_secs());
        let row = format!(
            "| `Budget::{name}()` | {total} | {lame_duck} | {}",
            limit.as_secs()
        );
        assert!(page.contains(&row), "{row}");
    }
    let pages = ["lifecycle", "production", "servers", "shutdown"];
    for page in pages.map(|page| fs::read_to_string(format!("docs/{page}.md")).unwrap()) {
        for line in page.lines() {
            let (name, value) = match line.trim().split_once([':', '=']) {
                Some(("terminationGracePeriodSeconds", value)) => ("kubernetes", value),
                Some(("TimeoutStopSec" | "Environment=TIMEOUT_STOP_SEC", value)) => {
                    ("systemd", value)
                }
                _ => continue,
            };
            let seconds = value.split_whitespace().next().unwrap();
            let usual = if name == "kubernetes" { "30" } else { "90" };
            assert_eq!(seconds, usual, "{line}");
        }
    }
    let kubernetes = Budget::kubernetes();
    let (_, limit) = kubernetes.platform_limit().unwrap();
    let grace = format!("terminationGracePeriodSeconds: {}\n", limit.as_secs());
    assert!(DEPLOYMENT.contains(&grace), "{grace}");
    let lame_duck = format!("--lame-duck={}\n", kubernetes.lame_duck_time().as_secs());
    assert!(DEPLOYMENT.contains(&lame_duck), "{lame_duck}");
    let (_, limit) = Budget::systemd()
        .platform_limit()
        .map(|(name, limit)| (name.to_owned(), limit))
        .unwrap();
    assert!(UNIT.contains(&format!("TimeoutStopSec={}\n", limit.as_secs())));
}
