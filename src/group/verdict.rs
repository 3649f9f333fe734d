//! [`Ended`]: how an error says how something ended, whatever it is wrapped in.
//!
//! An exit status depends on more than the message of an error: on how the task ended, on why its group
//! was cancelled, on what failed after it. All errors of this crate say that through one trait. To find
//! them in a chain by their types would take a list of these types, and would miss two kinds: a
//! `TaskError<E>` whose `E` is unknown here, and an error inside a transparent wrapper, which shows
//! only the sources of what it wraps. `Error::provide` is made for this and is unstable. So the
//! question is put through a call that all wrappers pass on: [`ask`] leaves a question in the thread
//! and calls `source`, and an error of ours that is called answers it, see [`tell`].

use std::cell::RefCell;
use std::error::Error;

use crate::group::cause::Cause;
use crate::group::chain;
use crate::group::end::End;

/// An error that says how something ended.
pub trait Ended: Error {
    /// How it ended, from its own point of view: the error that a task returned may know more.
    fn end(&self) -> End;

    /// Why its group was cancelled, if it is the error of a group.
    fn cause(&self) -> Option<&Cause> {
        None
    }

    /// What went wrong after it.
    fn later(&self) -> Vec<&dyn Ended> {
        Vec::new()
    }

    /// Itself as an error that has a type.
    fn as_error(&self) -> &(dyn Error + 'static);
}

/// What an error has answered. The answer outlives the call, so it cannot borrow from the error.
struct Answer {
    end: End,
    cause: Option<Cause>,
    cast: Cast,
}

/// Finds the error that has answered in the one that was asked, which may be a wrapper of it.
type Cast = for<'a> fn(&'a (dyn Error + 'static)) -> Option<&'a dyn Ended>;

enum Question {
    Open,
    Answered(Answer),
}

thread_local! {
    static QUESTION: RefCell<Option<Question>> = const { RefCell::new(None) };
}

/// Answers the question, if there is one; to be called in `source`.
pub(crate) fn tell<X: Ended + 'static>(error: &X) {
    let is_open = QUESTION.try_with(|question| {
        let question = question.try_borrow();
        question.is_ok_and(|question| matches!(*question, Some(Question::Open)))
    });
    if is_open != Ok(true) {
        return;
    }
    let answer = Answer {
        end: Ended::end(error),
        cause: Ended::cause(error).cloned(),
        cast: |error| error.downcast_ref::<X>().map(|error| error as &dyn Ended),
    };
    // A thread whose locals are gone asks nothing.
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

/// How that of which the error tells has ended.
///
/// In its chain the first that is more than [`Failed`](End::Failed) decides: a task fails because its
/// server ran out of time.
pub(crate) fn end_of(error: &(dyn Error + 'static)) -> End {
    decisive(&failures_of(error)).map_or(End::Failed, |(end, _)| end)
}

/// An error, and those that came after it, each with how it ended.
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

/// A failure: how it ended, and its error.
pub(crate) type Failed<'a> = (End, &'a (dyn Error + 'static));

/// The first failure that is no timeout, or else the first one.
pub(crate) fn decisive<'a>(failures: &[Failed<'a>]) -> Option<Failed<'a>> {
    let other = failures.iter().find(|(end, _)| !end.is_forced());
    other.or(failures.first()).copied()
}

/// Why the group was cancelled whose error this is, or is inside this.
pub(crate) fn cause_of(error: &(dyn Error + 'static)) -> Option<Cause> {
    chain::errors(error).find_map(|error| ask(error)?.cause)
}

/// Whether anything had to be cut, here or below, or after another failure.
pub(crate) fn was_forced(error: &(dyn Error + 'static)) -> bool {
    chain::errors(error).any(|error| {
        ask(error).is_some_and(|Answer { end, cast, .. }| {
            let later = cast(error).map(Ended::later).unwrap_or_default();
            end.is_forced() || later.into_iter().any(|later| was_forced(later.as_error()))
        })
    })
}
