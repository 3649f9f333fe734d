//! What the sources name besides the primitives, as little of it as they use.

pub(crate) mod cause {
    /// Why a group was cancelled.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct Cause(pub(crate) u8);
}

pub(crate) mod error {
    /// A failure, and those that came after it.
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct TaskError<E>(pub(crate) E, pub(crate) Vec<TaskError<E>>);

    impl<E> TaskError<E> {
        pub(crate) fn new(error: E) -> Self {
            Self(error, Vec::new())
        }

        pub(crate) fn suppress(&mut self, later: Vec<Self>) {
            self.1 = later;
        }
    }
}
