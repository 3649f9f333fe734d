//! [`Budget`]: how long a stop may take in all, and its parts.

pub(in crate::lifecycle) mod detect;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use self::detect::{Found, Platform, Surroundings};

/// How long the stop of a lifecycle may take in all, and what is reserved for the parts that are not
/// components. Plain data.
///
/// The total is a single number because the [platform](Self::platform) has a single limit too: it kills the
/// process when that has passed. The time of a [preStop hook](Self::pre_stop) counts against that limit. So
/// the hook, the total and a second more fit into the limit, and each part of a stop has its place in the
/// total:
///
/// | part | what it is for | default |
/// |---|---|---|
/// | [`jitter`](Self::jitter) | replicas that are told at once do not stop at once | 0 |
/// | [`lame_duck`](Self::lame_duck) | no longer ready, still serving | 0 |
/// | [`drain`](Self::drain) | the first phase of a two-phase stop: all drain at once | 0 |
/// | [stop time](Self::stop_time) | the components, those that depend on others first | the rest |
/// | [`cleanup`](Self::cleanup) | the cleanup steps, last in first out | 0 |
/// | [`margin`](Self::margin) | to confirm that forced tasks are gone, and to report | min(1 s, total / 10) |
///
/// The parts are checked when the [`Plan`](crate::lifecycle::Plan) is made, before anything is started. A
/// budget that is smaller than its parts, or that does not fit into the limit of the platform, is an error
/// that names the numbers.
///
/// # Presets
///
/// The total of a preset follows its limit and its hook. It is `limit - pre_stop - reserve`. The reserve is
/// a tenth of the limit, but at least 1 s, and at most 2 s (5 s under systemd). So [`platform`](Self::platform) and
/// [`pre_stop`](Self::pre_stop) may be called on a preset, and the stop still fits.
///
/// | preset | limit | total | lame duck | the signal |
/// |---|---|---|---|---|
/// | [`kubernetes`](Self::kubernetes) | 30 s | 28 s | 5 s | SIGTERM |
/// | [`systemd`](Self::systemd) | 90 s | 85 s | 0 | SIGTERM |
/// | [`docker`](Self::docker) | 10 s | 9 s | 0 | SIGTERM |
/// | [`ecs`](Self::ecs) | 30 s | 28 s | 0 | SIGTERM |
/// | [`cloud_run`](Self::cloud_run) | 10 s | 9 s | 0 | SIGTERM |
/// | [`heroku`](Self::heroku) | 30 s | 28 s | 0 | SIGTERM, perhaps twice |
/// | [`fly`](Self::fly) | 5 s | 4 s | 0 | SIGINT |
/// | [`nomad`](Self::nomad) | 5 s | 4 s | 0 | SIGINT, with Docker SIGTERM |
/// | [`local`](Self::local) | none | 10 s | 0 | SIGINT |
///
/// [`detect`](Self::detect) finds the platform.
///
/// Each time is exact, and any duration is accepted until the plan is made. A total of [`Duration::MAX`]
/// means no limit. Then components that ask for no grace may take any time, and only a forced stop ends
/// them.
///
/// A plain [`Duration`] converts to a budget without parts, as with [`new`](Self::new).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::lifecycle::Budget;
///
/// let budget = Budget::kubernetes().cleanup(Duration::from_secs(2));
/// assert_eq!(budget.total(), Duration::from_secs(28));
/// assert_eq!(budget.lame_duck_time(), Duration::from_secs(5));
/// assert_eq!(budget.margin(), Duration::from_secs(1));
/// assert_eq!(budget.stop_time(), Duration::from_secs(28 - 5 - 2 - 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a budget does nothing until a lifecycle is given it"]
pub struct Budget {
    /// Not that of a preset, which has a reserve and a platform.
    total: Duration,
    /// What a preset keeps back of its limit at most.
    reserve: Option<Duration>,
    pre_stop: Duration,
    jitter: Duration,
    lame_duck: Duration,
    drain: Duration,
    cleanup: Duration,
    start: Duration,
    platform: Option<(Cow<'static, str>, Duration)>,
    detected: Option<String>,
    invalid: Option<InvalidVariable>,
}

/// An environment variable whose value is not a number of seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) struct InvalidVariable {
    pub(in crate::lifecycle) variable: String,
    pub(in crate::lifecycle) value: String,
}

impl Budget {
    /// What has to be left of the platform's limit when the budget is over.
    pub(crate) const SLACK: Duration = Duration::from_secs(1);

    /// Makes a budget of `total`, without parts and without a platform.
    ///
    /// Zero is an error of the plan. [`Duration::MAX`] means no limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::Budget;
    ///
    /// let budget = Budget::new(Duration::from_secs(5));
    /// assert_eq!(budget, Duration::from_secs(5).into());
    /// assert_eq!(budget.stop_time(), Duration::from_millis(4_500));
    /// ```
    pub const fn new(total: Duration) -> Self {
        Self {
            total,
            reserve: None,
            pre_stop: Duration::ZERO,
            jitter: Duration::ZERO,
            lame_duck: Duration::ZERO,
            drain: Duration::ZERO,
            cleanup: Duration::ZERO,
            start: Duration::MAX,
            platform: None,
            detected: None,
            invalid: None,
        }
    }

    /// Makes the budget of a pod, 28 seconds in all with a lame duck of 5 seconds.
    ///
    /// Kubernetes sends SIGKILL 30 seconds after it has begun to end a pod, unless the pod's
    /// `terminationGracePeriodSeconds` says otherwise. Two of those seconds are kept back. SIGTERM takes
    /// time to reach the process, and the watchdog has to end the process before the platform does, or the
    /// report on what was stuck is lost. The lame duck is the time that the endpoints of a service usually
    /// take to forget a pod.
    ///
    /// For a pod with another grace period, set the limit with [`platform`](Self::platform) or
    /// [`platform_from_env`](Self::platform_from_env). The total follows it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::Budget;
    ///
    /// let secs = Duration::from_secs;
    /// let pod = Budget::kubernetes();
    /// assert_eq!((pod.total(), pod.lame_duck_time()), (secs(28), secs(5)));
    /// let pod = Budget::kubernetes().platform("terminationGracePeriodSeconds", secs(60));
    /// assert_eq!(pod.total(), secs(58));
    /// ```
    pub fn kubernetes() -> Self {
        let name = "Kubernetes' terminationGracePeriodSeconds";
        Self::preset(name, 30).lame_duck(Duration::from_secs(5))
    }

    /// Makes the budget of a systemd unit, 85 seconds in all without a lame duck.
    ///
    /// systemd sends SIGKILL when `TimeoutStopSec` has passed, 90 seconds by default. Five of those seconds
    /// are kept back, for the same reasons as in a [pod](Self::kubernetes) and because a machine that shuts
    /// down is busy. Nothing probes a unit, so a lame duck would serve no purpose.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::Budget;
    ///
    /// assert_eq!(Budget::systemd().total(), Duration::from_secs(85));
    /// assert_eq!(Budget::systemd().lame_duck_time(), Duration::ZERO);
    /// ```
    pub fn systemd() -> Self {
        Self {
            reserve: Some(Duration::from_secs(5)),
            ..Self::preset("systemd's TimeoutStopSec", 90)
        }
    }

    /// Makes the budget of a container that `docker stop` or Compose ends, 9 seconds in all.
    ///
    /// Docker sends SIGKILL after 10 seconds, unless `--stop-timeout` or `stop_grace_period` says otherwise. For that,
    /// set the limit with [`platform`](Self::platform).
    pub fn docker() -> Self {
        Self::preset("Docker's stop timeout", 10)
    }

    /// Makes the budget of a task of Amazon ECS, 28 seconds in all without a lame duck.
    ///
    /// ECS sends SIGKILL after the container's `stopTimeout`, 30 seconds by default, and 120 at most on Fargate. It
    /// deregisters the task from its load balancer before it sends SIGTERM, so a lame duck would serve no purpose.
    pub fn ecs() -> Self {
        Self::preset("ECS' stopTimeout", 30)
    }

    /// Makes the budget of an instance of Cloud Run, 9 seconds in all without a lame duck.
    ///
    /// Cloud Run sends SIGKILL 10 seconds after SIGTERM, which cannot be changed. It sends no requests to an instance that
    /// it ends.
    pub fn cloud_run() -> Self {
        Self::preset("Cloud Run's limit", 10)
    }

    /// Makes the budget of a dyno of Heroku, 28 seconds in all without a lame duck.
    ///
    /// Heroku sends SIGKILL 30 seconds after SIGTERM, which cannot be changed. It may send SIGTERM more than once, so a
    /// second one must not force the exit.
    ///
    /// # Examples
    ///
    /// With feature `signal`, only Ctrl-C insists.
    ///
    /// ```
    /// # #[cfg(all(unix, feature = "signal"))] {
    /// use taskgroup::{Signal, Signals};
    /// use taskgroup::lifecycle::{Budget, Lifecycle};
    ///
    /// let signals = Signals::terminate()?.insist_on([Signal::Interrupt])?;
    /// let lifecycle = Lifecycle::new("orders").budget(Budget::heroku()).stop_on(signals);
    /// # drop(lifecycle);
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn heroku() -> Self {
        Self::preset("Heroku's limit", 30)
    }

    /// Makes the budget of a machine of Fly, 4 seconds in all without a lame duck.
    ///
    /// Fly sends SIGINT, and SIGKILL after the `kill_timeout` of `fly.toml`, 5 seconds by default and 300 at most. Set a
    /// longer one, and the limit with [`platform`](Self::platform).
    pub fn fly() -> Self {
        Self::preset("Fly's kill_timeout", 5)
    }

    /// Makes the budget of a task of Nomad, 4 seconds in all without a lame duck.
    ///
    /// Nomad sends SIGINT, or SIGTERM to a task of the Docker driver, and kills it after its `kill_timeout`, 5 seconds by
    /// default. The `max_kill_timeout` of the client, 30 seconds by default, caps it. The `shutdown_delay` passes before
    /// the signal and does not count. Set a longer time, and the limit with [`platform`](Self::platform).
    pub fn nomad() -> Self {
        Self::preset("Nomad's kill_timeout", 5)
    }

    /// A budget whose total follows the limit of its platform.
    fn preset(name: &'static str, seconds: u64) -> Self {
        Self {
            reserve: Some(Duration::from_secs(2)),
            platform: Some((name.into(), Duration::from_secs(seconds))),
            ..Self::new(Duration::ZERO)
        }
    }

    /// Makes the budget of a program on a developer's machine, 10 seconds without parts.
    ///
    /// It is the default. 10 seconds is the longest a person at a terminal will wait, and the default of `docker stop`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::Budget;
    ///
    /// assert_eq!(Budget::local(), Budget::new(Duration::from_secs(10)));
    /// assert_eq!(Budget::local(), Budget::default());
    /// ```
    pub fn local() -> Self {
        Self::new(Duration::from_secs(10))
    }

    /// Makes the budget for the environment that the process runs in, read now.
    ///
    /// | runs under | because | budget |
    /// |---|---|---|
    /// | Kubernetes | `KUBERNETES_SERVICE_HOST` is set | [`kubernetes`](Self::kubernetes) |
    /// | ECS | `ECS_CONTAINER_METADATA_URI_V4` is set | [`ecs`](Self::ecs) |
    /// | Cloud Run | `K_SERVICE` is set | [`cloud_run`](Self::cloud_run) |
    /// | Fly | `FLY_APP_NAME` is set | [`fly`](Self::fly) |
    /// | Nomad | `NOMAD_ALLOC_ID` is set | [`nomad`](Self::nomad) |
    /// | Heroku | `DYNO` is set | [`heroku`](Self::heroku) |
    /// | systemd | `SYSTEMD_EXEC_PID` is this process, or `NOTIFY_SOCKET` is set | [`systemd`](Self::systemd) |
    /// | a terminal | stdin or stderr is one | [`local`](Self::local) |
    /// | none of them | | [`local`](Self::local) |
    ///
    /// The first row that applies counts. The plan prints it with the reason. Plain Docker sets no variable, so
    /// call [`docker`](Self::docker) there.
    ///
    /// A process cannot see the limit of its platform, but a manifest can repeat it as a variable, in
    /// seconds. Use `TERMINATION_GRACE_PERIOD_SECONDS` in a pod, `TIMEOUT_STOP_SEC` in a unit
    /// (`Environment=TIMEOUT_STOP_SEC=90` beside `TimeoutStopSec=90`), and `STOP_TIMEOUT_SECONDS` on the other
    /// platforms. A pod with a preStop hook has its time in `PRE_STOP_SECONDS`, see
    /// [`pre_stop`](Self::pre_stop). The total follows both, as that of each [preset](Self#presets). The lame
    /// duck is then at most a quarter of the total. A value that is not a number of seconds is an error of the
    /// plan.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Budget, Lifecycle};
    ///
    /// let plan = Lifecycle::new("orders").budget(Budget::detect()).plan()?;
    /// assert!(plan.to_string().contains("\ndetected "), "{plan}");
    /// # Ok::<(), taskgroup::BoxError>(())
    /// ```
    pub fn detect() -> Self {
        Self::found(Surroundings::now().found())
    }

    fn found(found: Found) -> Self {
        let budget = match found.platform {
            Platform::Kubernetes => Self::kubernetes(),
            Platform::Ecs => Self::ecs(),
            Platform::CloudRun => Self::cloud_run(),
            Platform::Fly => Self::fly(),
            Platform::Nomad => Self::nomad(),
            Platform::Heroku => Self::heroku(),
            Platform::Systemd => Self::systemd(),
            Platform::Local => Self::local(),
        };
        let mut budget = Self {
            detected: Some(found.why),
            ..budget
        };
        if let Some((variable, value)) = found.pre_stop {
            match seconds(&value.to_string_lossy()) {
                Some(time) => budget.pre_stop = time,
                None => budget = budget.cannot_read(variable.into(), &value),
            }
        }
        if let Some((variable, value)) = found.limit {
            budget = budget.platform_from(variable.into(), Some(value));
            // Most of a short stop is for the work in flight.
            budget.lame_duck = budget.lame_duck.min(budget.total() / 4);
        }
        budget
    }

    /// Sets the longest random wait before a stop begins. The default is zero, which means no wait.
    ///
    /// The service is ready and serves during the wait. It keeps many replicas that are stopped at once
    /// from leaving the load balancer at the same time. The plan reserves all of it.
    pub const fn jitter(mut self, longest: Duration) -> Self {
        self.jitter = longest;
        self
    }

    /// Sets how long the service goes on serving after it stops being ready. The default is zero.
    ///
    /// Set it longer than the load balancer takes to notice in the worst case.
    ///
    /// A stop by SIGINT skips the lame duck and the [jitter](Self::jitter) if stdin or stderr is a
    /// terminal. A person has pressed Ctrl-C there, so no load balancer has to notice.
    pub const fn lame_duck(mut self, length: Duration) -> Self {
        self.lame_duck = length;
        self
    }

    /// Sets the time of the first phase of a two-phase stop. The default is zero, which means a stop in one
    /// phase.
    ///
    /// All components that drain do so at once in that time, whatever they depend on. Then they are stopped
    /// one after another. A component that drains in a budget without this time is an error of the plan.
    pub const fn drain(mut self, length: Duration) -> Self {
        self.drain = length;
        self
    }

    /// Sets the time reserved for the cleanup steps at the end. The default is zero.
    ///
    /// With zero, the steps get the time that the components leave.
    pub const fn cleanup(mut self, length: Duration) -> Self {
        self.cleanup = length;
        self
    }

    /// Sets the time within which all components have to be ready, without a limit by default.
    ///
    /// It counts from the begin of the run. When it is over, the start has failed, and each component that
    /// has been started and is not ready is an error of the report. The total does not include it, since
    /// the total is for the stop. Zero is an error of the plan.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::{Budget, Component, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let slow = Component::new("cache", |ctx| async move { Ok(ctx.stopping().await) });
    /// let report = Lifecycle::new("orders")
    ///     .budget(Budget::local().start_within(Duration::from_secs(20)))
    ///     .component(slow)
    ///     .run()
    ///     .await?;
    /// let error = report.errors[0].to_string();
    /// assert!(error.starts_with("component `cache` was not ready within 20s"), "{error}");
    /// # Ok(())
    /// # }
    /// ```
    pub const fn start_within(mut self, limit: Duration) -> Self {
        self.start = limit;
        self
    }

    /// Sets how long the platform waits before it sends the signal, while its limit counts already.
    ///
    /// It is the time of Kubernetes' `preStop` hook, such as the seconds of its `sleep`. The default is zero. The
    /// process does not notice it, and it is not a part of the total. Together with the total and a second more it
    /// has to fit into the limit of the [platform](Self::platform), and the plan prints it.
    ///
    /// The service is still ready in that time. If the hook waits until the endpoints are withdrawn, a
    /// [lame duck](Self::lame_duck) after it only makes the stop longer, so set that to zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::{Budget, Lifecycle};
    ///
    /// let secs = Duration::from_secs;
    /// let budget = Budget::kubernetes().pre_stop(secs(5)).lame_duck(Duration::ZERO);
    /// assert_eq!(budget.total(), secs(30 - 5 - 2));
    /// let plan = Lifecycle::new("orders").budget(budget).plan()?;
    /// assert!(plan.to_string().contains("preStop 5s: before the signal"), "{plan}");
    /// # Ok::<(), taskgroup::BoxError>(())
    /// ```
    pub const fn pre_stop(mut self, time: Duration) -> Self {
        self.pre_stop = time;
        self
    }

    /// Sets the time after which the platform kills the process, and the name of that `limit`.
    ///
    /// The [preStop time](Self::pre_stop), the total and a second more have to fit into it. The total of a
    /// [preset](Self#presets) follows the limit. A second call replaces the platform.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::Budget;
    ///
    /// let budget = Budget::new(Duration::from_secs(55)).platform("stop_timeout", Duration::from_secs(60));
    /// assert_eq!(budget.platform_limit(), Some(("stop_timeout", Duration::from_secs(60))));
    /// ```
    pub fn platform(mut self, name: impl Into<Cow<'static, str>>, limit: Duration) -> Self {
        self.platform = Some((name.into(), limit));
        self
    }

    /// Reads the limit of the [platform](Self::platform) from an environment variable, in seconds:
    /// `30` or `2.5`.
    ///
    /// A pod cannot see its own grace period, but its manifest can repeat it as a variable beside
    /// `terminationGracePeriodSeconds`. The variable is read now. If it is not set, nothing changes. If it
    /// is not a number of seconds, the plan returns an error that names it. A later call does not clear
    /// that error.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::Budget;
    ///
    /// let budget = Budget::kubernetes().platform_from_env("TERMINATION_GRACE_PERIOD_SECONDS");
    /// assert_eq!(budget, Budget::kubernetes(), "it is not set here");
    /// ```
    pub fn platform_from_env(self, variable: impl Into<Cow<'static, str>>) -> Self {
        let variable = variable.into();
        let value = std::env::var_os(&*variable);
        self.platform_from(variable, value)
    }

    /// Like `platform_from_env`, with the value that was read.
    pub(in crate::lifecycle) fn platform_from(
        self,
        variable: Cow<'static, str>,
        value: Option<OsString>,
    ) -> Self {
        let Some(value) = value else {
            return self;
        };
        match seconds(&value.to_string_lossy()) {
            Some(limit) => self.platform(variable, limit),
            None => self.cannot_read(variable, &value),
        }
    }

    fn cannot_read(mut self, variable: Cow<'static, str>, value: &OsStr) -> Self {
        let invalid = InvalidVariable {
            variable: variable.into_owned(),
            value: value.to_string_lossy().into_owned(),
        };
        // The first one is reported.
        self.invalid = self.invalid.or(Some(invalid));
        self
    }

    /// Returns how long the stop may take in all.
    #[must_use]
    pub fn total(&self) -> Duration {
        match (self.reserve, &self.platform) {
            (Some(_), Some((_, Duration::MAX))) => Duration::MAX,
            (Some(reserve), Some((_, limit))) => {
                let reserve = (*limit / 10).clamp(Self::SLACK, reserve);
                let kept = self.pre_stop.saturating_add(reserve);
                limit.saturating_sub(kept)
            }
            _ => self.total,
        }
    }

    /// Returns how long the platform waits before it sends the signal.
    #[must_use]
    pub const fn pre_stop_time(&self) -> Duration {
        self.pre_stop
    }

    /// Returns the longest random wait before the stop begins.
    #[must_use]
    pub const fn jitter_time(&self) -> Duration {
        self.jitter
    }

    /// Returns how long the lame duck is.
    #[must_use]
    pub const fn lame_duck_time(&self) -> Duration {
        self.lame_duck
    }

    /// Returns the time of the first phase of a two-phase stop.
    #[must_use]
    pub const fn drain_time(&self) -> Duration {
        self.drain
    }

    /// Returns the time reserved for the cleanup steps.
    #[must_use]
    pub const fn cleanup_time(&self) -> Duration {
        self.cleanup
    }

    /// Returns the time within which all components have to be ready. [`Duration::MAX`] means no limit.
    #[must_use]
    pub const fn start_time(&self) -> Duration {
        self.start
    }

    /// Returns the time reserved to confirm that forced tasks are gone, and to report. It is a tenth of the
    /// total, and one second at most.
    #[must_use]
    pub fn margin(&self) -> Duration {
        (self.total() / 10).min(Duration::from_secs(1))
    }

    /// Returns the time left for the components: the total without its parts, or zero if the parts exceed
    /// it.
    ///
    /// With a total of [`Duration::MAX`] it is [`Duration::MAX`], whatever the parts are.
    #[must_use]
    pub fn stop_time(&self) -> Duration {
        if self.total() == Duration::MAX {
            return Duration::MAX;
        }
        self.total().saturating_sub(self.kept())
    }

    /// Returns what [`detect`](Self::detect) has found, and why.
    #[must_use]
    pub fn detected_as(&self) -> Option<&str> {
        self.detected.as_deref()
    }

    /// Returns the platform's name for its limit, and the limit, if one is set.
    #[must_use]
    pub fn platform_limit(&self) -> Option<(&str, Duration)> {
        self.platform
            .as_ref()
            .map(|(name, limit)| (&**name, *limit))
    }

    /// The longest time until the first component is told.
    pub(in crate::lifecycle) fn before_the_stop(&self) -> Duration {
        let parts = self.jitter.saturating_add(self.lame_duck);
        parts.saturating_add(self.drain)
    }

    /// The time reserved for the parts that are not components.
    pub(in crate::lifecycle) fn kept(&self) -> Duration {
        let parts = [self.lame_duck, self.drain, self.cleanup, self.margin()];
        parts
            .into_iter()
            .fold(self.jitter, Duration::saturating_add)
    }

    /// The variable that was not a number of seconds.
    pub(in crate::lifecycle) fn invalid_variable(&self) -> Option<&InvalidVariable> {
        self.invalid.as_ref()
    }
}

/// The [local](Budget::local) budget.
impl Default for Budget {
    fn default() -> Self {
        Self::local()
    }
}

impl From<Duration> for Budget {
    fn from(total: Duration) -> Self {
        Self::new(total)
    }
}

/// Whole or fractional seconds, in digits.
fn seconds(text: &str) -> Option<Duration> {
    let text = text.trim();
    // An `f64` also parses `inf` and `1e3`.
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return None;
    }
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn read(value: &str) -> Budget {
        Budget::kubernetes().platform_from("GRACE".into(), Some(value.into()))
    }

    #[test]
    fn the_presets_are_what_the_platforms_grant_without_a_reserve() {
        let kubernetes = Budget::kubernetes();
        assert_eq!(kubernetes.total(), 28 * SECOND);
        assert_eq!(kubernetes.lame_duck_time(), 5 * SECOND);
        let name = "Kubernetes' terminationGracePeriodSeconds";
        assert_eq!(kubernetes.platform_limit(), Some((name, 30 * SECOND)));

        let systemd = Budget::systemd();
        assert_eq!(systemd.total(), 85 * SECOND);
        assert_eq!(systemd.kept(), SECOND);
        let name = "systemd's TimeoutStopSec";
        assert_eq!(systemd.platform_limit(), Some((name, 90 * SECOND)));

        assert_eq!(Budget::default(), Budget::new(10 * SECOND));
        assert_eq!(Budget::default().platform_limit(), None);
    }

    #[test]
    fn the_other_presets_leave_a_second_or_two_and_have_no_lame_duck() {
        for (budget, total, limit) in [
            (Budget::docker(), 9, 10),
            (Budget::ecs(), 28, 30),
            (Budget::cloud_run(), 9, 10),
            (Budget::heroku(), 28, 30),
            (Budget::fly(), 4, 5),
            (Budget::nomad(), 4, 5),
        ] {
            let (name, of) = budget.platform_limit().unwrap();
            assert_eq!(of, limit * SECOND, "{name}");
            assert_eq!(budget.total(), total * SECOND, "{name}");
            assert_eq!(budget.lame_duck_time(), Duration::ZERO, "{name}");
        }
    }

    #[test]
    fn the_total_of_a_preset_follows_its_limit_and_its_hook_and_any_other_does_not() {
        let pod = Budget::kubernetes().pre_stop(5 * SECOND);
        assert_eq!(pod.total(), 23 * SECOND);
        assert_eq!(
            pod.clone().platform("a pod", 60 * SECOND).total(),
            53 * SECOND
        );
        assert_eq!(pod.platform("a pod", 4 * SECOND).total(), Duration::ZERO);
        let own = Budget::new(28 * SECOND).pre_stop(5 * SECOND);
        assert_eq!(own.platform("a pod", 60 * SECOND).total(), 28 * SECOND);
    }

    #[test]
    fn the_parts_are_taken_from_the_total() {
        let budget = Budget::new(100 * SECOND)
            .jitter(SECOND)
            .lame_duck(2 * SECOND)
            .drain(4 * SECOND)
            .cleanup(8 * SECOND);
        assert_eq!(budget.jitter_time(), SECOND);
        assert_eq!(budget.drain_time(), 4 * SECOND);
        assert_eq!(budget.cleanup_time(), 8 * SECOND);
        assert_eq!(budget.stop_time(), 84 * SECOND);
        assert_eq!(budget.drain(Duration::MAX).stop_time(), Duration::ZERO);
    }

    #[test]
    fn the_margin_is_a_tenth_and_one_second_at_most() {
        assert_eq!(Budget::new(SECOND).margin(), SECOND / 10);
        assert_eq!(Budget::new(10 * SECOND).margin(), SECOND);
        assert_eq!(Budget::new(Duration::MAX).margin(), SECOND);
    }

    #[test]
    fn without_a_bound_there_is_any_time() {
        let budget = Budget::new(Duration::MAX).lame_duck(5 * SECOND);
        assert_eq!(budget.stop_time(), Duration::MAX);
    }

    #[test]
    fn a_variable_is_whole_or_fractional_seconds() {
        for (value, limit) in [
            ("60", 60 * SECOND),
            (" 60\n", 60 * SECOND),
            ("2.5", 5 * SECOND / 2),
            ("0.1", SECOND / 10),
            ("0", Duration::ZERO),
        ] {
            let budget = read(value);
            assert_eq!(budget.platform_limit(), Some(("GRACE", limit)), "{value:?}");
            assert_eq!(budget.invalid_variable(), None);
        }
    }

    #[test]
    fn a_variable_that_is_not_set_changes_nothing() {
        let budget = Budget::kubernetes().platform_from("GRACE".into(), None);
        assert_eq!(budget, Budget::kubernetes());
    }

    #[test]
    fn a_variable_that_is_not_a_number_of_seconds_is_kept_for_the_plan() {
        let huge = "9".repeat(30);
        for value in [
            "", "soon", "30s", "-1", "+1", "1e3", "inf", "nan", ".", "1.2.3", &huge,
        ] {
            let invalid = InvalidVariable {
                variable: "GRACE".to_owned(),
                value: value.to_owned(),
            };
            assert_eq!(read(value).invalid_variable(), Some(&invalid), "{value:?}");
        }
        let later = read("soon").platform_from("OTHER".into(), Some("60".into()));
        assert!(later.invalid_variable().is_some());
    }

    const IN_A_POD: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");

    fn surroundings(variables: &[(&'static str, &str)], is_terminal: bool) -> Surroundings {
        let variables = variables.iter();
        Surroundings {
            variables: variables
                .map(|(name, value)| (*name, value.into()))
                .collect(),
            pid: 42,
            is_terminal,
        }
    }

    #[track_caller]
    fn detected(variables: &[(&'static str, &str)], is_terminal: bool) -> (String, Budget) {
        let budget = Budget::found(surroundings(variables, is_terminal).found());
        (budget.detected_as().unwrap().to_owned(), budget)
    }

    impl Budget {
        fn because(self, why: &str) -> Self {
            Self {
                detected: Some(why.to_owned()),
                ..self
            }
        }
    }

    #[test]
    fn a_pod_is_kubernetes_even_with_a_terminal() {
        let (why, budget) = detected(&[IN_A_POD], true);
        assert_eq!(why, "Kubernetes: KUBERNETES_SERVICE_HOST is set");
        assert_eq!(budget, Budget::kubernetes().because(&why));
    }

    #[test]
    fn the_grace_period_of_a_pod_is_its_limit() {
        let (_, budget) = detected(
            &[IN_A_POD, ("TERMINATION_GRACE_PERIOD_SECONDS", "60")],
            false,
        );
        assert_eq!(budget.total(), 58 * SECOND);
        assert_eq!(budget.lame_duck_time(), 5 * SECOND);
        assert_eq!(
            budget.platform_limit(),
            Some(("TERMINATION_GRACE_PERIOD_SECONDS", 60 * SECOND))
        );
        let (_, budget) = detected(
            &[IN_A_POD, ("TERMINATION_GRACE_PERIOD_SECONDS", "10")],
            false,
        );
        assert_eq!(budget.total(), 9 * SECOND);
        assert_eq!(budget.lame_duck_time(), 9 * SECOND / 4);
    }

    #[test]
    fn the_hook_of_a_pod_counts_against_its_limit() {
        let hook = ("PRE_STOP_SECONDS", "5");
        let (_, budget) = detected(&[IN_A_POD, hook], false);
        assert_eq!(budget.pre_stop_time(), 5 * SECOND);
        assert_eq!(budget.total(), 23 * SECOND);
        let limit = ("TERMINATION_GRACE_PERIOD_SECONDS", "60");
        let (_, budget) = detected(&[IN_A_POD, hook, limit], false);
        assert_eq!(budget.total(), 53 * SECOND);
        let (_, budget) = detected(&[IN_A_POD, ("PRE_STOP_SECONDS", "5s")], false);
        assert_eq!(
            budget.invalid_variable().unwrap().variable,
            "PRE_STOP_SECONDS"
        );
    }

    #[test]
    fn the_other_platforms_are_found_by_their_variables() {
        for (variable, platform, budget) in [
            ("ECS_CONTAINER_METADATA_URI_V4", "ECS", Budget::ecs()),
            ("K_SERVICE", "Cloud Run", Budget::cloud_run()),
            ("FLY_APP_NAME", "Fly", Budget::fly()),
            ("NOMAD_ALLOC_ID", "Nomad", Budget::nomad()),
            ("DYNO", "Heroku", Budget::heroku()),
        ] {
            let (why, found) = detected(&[(variable, "x")], true);
            assert_eq!(why, format!("{platform}: {variable} is set"));
            assert_eq!(found, budget.because(&why));
            let (_, longer) = detected(&[(variable, "x"), ("STOP_TIMEOUT_SECONDS", "60")], false);
            assert_eq!(longer.total(), 58 * SECOND);
        }
    }

    #[test]
    fn the_main_process_of_a_unit_is_under_systemd() {
        let (why, budget) = detected(&[("SYSTEMD_EXEC_PID", "42")], false);
        assert_eq!(why, "systemd: SYSTEMD_EXEC_PID is this process");
        assert_eq!(budget.total(), 85 * SECOND);
        let (why, budget) = detected(
            &[("NOTIFY_SOCKET", "@x"), ("TIMEOUT_STOP_SEC", "20")],
            false,
        );
        assert_eq!(why, "systemd: NOTIFY_SOCKET is set");
        assert_eq!(budget.total(), 18 * SECOND);
        assert_eq!(
            budget.platform_limit(),
            Some(("TIMEOUT_STOP_SEC", 20 * SECOND))
        );
    }

    #[test]
    fn a_shell_below_a_unit_is_a_terminal() {
        let (why, budget) = detected(&[("SYSTEMD_EXEC_PID", "7"), ("NOTIFY_SOCKET", "")], true);
        assert_eq!(why, "a terminal: stdin or stderr is one");
        assert_eq!(budget, Budget::local().because(&why));
    }

    #[test]
    fn an_unknown_platform_is_local() {
        let (why, budget) = detected(&[], false);
        assert_eq!(why, "no platform and no terminal");
        assert_eq!(budget.total(), 10 * SECOND);
    }

    #[test]
    fn a_limit_that_is_not_a_number_is_an_error_of_the_plan() {
        let (_, budget) = detected(
            &[IN_A_POD, ("TERMINATION_GRACE_PERIOD_SECONDS", "30s")],
            false,
        );
        let invalid = budget.invalid_variable().unwrap();
        assert_eq!(
            (&*invalid.variable, &*invalid.value),
            ("TERMINATION_GRACE_PERIOD_SECONDS", "30s")
        );
        let (_, budget) = detected(
            &[("SYSTEMD_EXEC_PID", "42"), ("TIMEOUT_STOP_SEC", "infinity")],
            false,
        );
        assert!(budget.invalid_variable().is_some());
    }
}
