//! [`Ended`] lets an error say how something ended, even inside a wrapper.
//!
//! An exit status depends on more than the message of an error. It depends on how the task ended, on
//! why its group was cancelled, and on what failed after it. All errors of this crate answer that
//! through one trait. Finding them in a chain by type would need a list of these types, and would miss
//! two kinds. One is a `TaskError<E>` whose `E` is unknown here. The other is an error inside a
//! transparent wrapper, which shows only the sources of the error it wraps. `Error::provide` would
//! solve this but is unstable. So the question travels through a call that all wrappers forward.
//! [`ask`] leaves a question in a thread-local and calls `source`, and an error of this crate that is
//! called answers it with [`tell`].

use std::cell::RefCell;
use std::error::Error;

use crate::group::cause::Cause;
use crate::group::chain;
use crate::group::end::End;

/// An error that says how something ended.
pub trait Ended: Error {
    /// How it ended, as far as this error knows. The error that a task returned may know more.
    fn end(&self) -> End;

    /// Why its group was cancelled, if it is the error of a group.
    fn cause(&self) -> Option<&Cause> {
        None
    }

    /// The failures that came after it.
    fn later(&self) -> Vec<&dyn Ended> {
        Vec::new()
    }

    /// Returns itself as an error with a concrete type.
    fn as_error(&self) -> &(dyn Error + 'static);
}

/// The answer of an error. It outlives the call, so it cannot borrow from the error.
struct Answer {
    end: End,
    cause: Option<Cause>,
    cast: Cast,
}

/// Finds the error that answered inside the error that was asked, which may wrap it.
type Cast = for<'a> fn(&'a (dyn Error + 'static)) -> Option<&'a dyn Ended>;

enum Question {
    Open,
    Answered(Answer),
}

thread_local! {
    static QUESTION: RefCell<Option<Question>> = const { RefCell::new(None) };
}

/// Answers the pending question, if any. Call it in `source`.
pub(crate) fn tell<X: Ended + 'static>(error: &X) {
    let cast: Cast = |error| error.downcast_ref::<X>().map(|error| error as &dyn Ended);
    answer(error, cast);
}

#[inline(never)]
fn answer(error: &dyn Ended, cast: Cast) {
    let is_open = QUESTION.try_with(|question| {
        let question = question.try_borrow();
        question.is_ok_and(|question| matches!(*question, Some(Question::Open)))
    });
    if is_open != Ok(true) {
        return;
    }
    let answer = Answer {
        end: error.end(),
        cause: Ended::cause(error).cloned(),
        cast,
    };
    // A thread whose locals are gone asks no question.
    let _ = QUESTION.try_with(|question| question.replace(Some(Question::Answered(answer))));
}

/// Asks one error of a chain how something ended.
fn ask(error: &(dyn Error + 'static)) -> Option<Answer> {
    let before = QUESTION.try_with(|question| question.replace(Some(Question::Open)));
    chain::below(error);
    let after = QUESTION.try_with(|question| question.replace(before.ok().flatten()));
    match after.ok().flatten() {
        Some(Question::Answered(answer)) => Some(answer),
        Some(Question::Open) | None => None,
    }
}

/// How the subject of the error has ended.
///
/// The first error of the chain that is more specific than [`Failed`](End::Failed) decides. For
/// example, a task fails because its server ran out of time.
pub(crate) fn end_of(error: &(dyn Error + 'static)) -> End {
    decisive(&failures_of(error)).map_or(End::Failed, |(end, _)| end)
}

/// An error and those that came after it, each with its end.
pub(crate) fn failures_of<'a>(error: &'a (dyn Error + 'static)) -> Vec<Failed<'a>> {
    let Some(Answer { end, cast, .. }) = ask(error) else {
        let end = chain::below(error).map_or(End::Failed, end_of);
        return vec![(end, error)];
    };
    let own = match end {
        End::Failed => chain::below(error).map_or(End::Failed, end_of),
        end => end,
    };
    let later = cast(error).map(Ended::later).unwrap_or_default();
    let later = later
        .into_iter()
        .flat_map(|later| failures_of(later.as_error()));
    std::iter::once((own, error)).chain(later).collect()
}

/// A failure, as its end and its error.
pub(crate) type Failed<'a> = (End, &'a (dyn Error + 'static));

/// The first failure that is not a timeout, or else the first one.
pub(crate) fn decisive<'a>(failures: &[Failed<'a>]) -> Option<Failed<'a>> {
    let other = failures.iter().find(|(end, _)| !end.is_forced());
    other.or(failures.first()).copied()
}

/// Why the group was cancelled, if this error or one inside it is a group's error.
pub(crate) fn cause_of(error: &(dyn Error + 'static)) -> Option<Cause> {
    chain::errors(error).find_map(|error| ask(error)?.cause)
}

/// Whether anything had to be aborted, here or below, or after another failure.
pub(crate) fn was_forced(error: &(dyn Error + 'static)) -> bool {
    chain::errors(error).any(|error| {
        ask(error).is_some_and(|Answer { end, cast, .. }| {
            let later = cast(error).map(Ended::later).unwrap_or_default();
            end.is_forced() || later.into_iter().any(|later| was_forced(later.as_error()))
        })
    })
}
