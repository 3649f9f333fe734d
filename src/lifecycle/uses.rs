//! [`Uses`]: the values of other components that a component gets as an argument.

use std::sync::Arc;

use super::provided::{Provided, Provider};

use self::sealed::Given;
pub(super) use self::sealed::{Declared, Wire};

/// The values that a component uses and provides.
///
/// | it is given | the component gets | and |
/// |---|---|---|
/// | `&pool`, a [`Provided<Pool>`](Provided) | a `Pool` | starts after the component that provides it |
/// | `pool.provider()` | a [`Provider<Pool>`](Provider) | is the component that provides it |
/// | `&pools[..]`, a slice of `Provided<Pool>` | a `Vec<Pool>` | starts after all of them |
/// | `(&pool, &address)`, a tuple of up to six of these | a tuple of the same shape | all of that |
/// | `()` | `()` | nothing |
///
/// The trait cannot be implemented elsewhere.
pub trait Uses: sealed::Uses {}

impl<U: sealed::Uses> Uses for U {}

impl<T: Send + Sync + 'static> Provided<T> {
    /// Makes a component the provider of the value. It gets a [`Provider`] as an argument.
    ///
    /// Pass it to [`Component::using`](super::Component::using).
    ///
    /// # Examples
    ///
    /// See [`Provider`].
    pub fn provider(&self) -> impl Uses<Values = Provider<T>> + use<T> {
        Provides(self.clone())
    }
}

/// Marks the component that provides a value.
struct Provides<T>(Provided<T>);

mod sealed {
    use std::sync::Arc;

    use super::super::provided::{Outlet, Provided, Value};

    pub trait Uses {
        /// The argument of the component.
        type Values: Send + 'static;
        type Wires: Wire<Values = Self::Values>;

        fn declare(self, declared: &mut Declared) -> Self::Wires;
    }

    /// The declared values, until the component is started.
    pub trait Wire: Send + 'static {
        type Values: Send + 'static;

        /// Takes the values, for the component with this path. `None` if one is missing.
        fn take(self, by: &Arc<str>) -> Option<Self::Values>;
    }

    /// A value that a component provides, until it is started.
    #[derive(Debug)]
    #[allow(unreachable_pub)] // It is in the interface of the trait.
    pub struct Given<T>(pub(super) Provided<T>);

    /// The values that a component declares.
    #[derive(Default)]
    #[allow(missing_debug_implementations)] // Nobody can have one.
    pub struct Declared {
        pub(in super::super) uses: Vec<Value>,
        pub(in super::super) provides: Vec<Box<dyn Outlet>>,
    }
}

impl<T: Clone + Send + Sync + 'static> sealed::Uses for &Provided<T> {
    type Values = T;
    type Wires = Provided<T>;

    fn declare(self, declared: &mut Declared) -> Provided<T> {
        declared.uses.push(self.as_value());
        self.clone()
    }
}

impl<T: Clone + Send + Sync + 'static> Wire for Provided<T> {
    type Values = T;

    fn take(self, _: &Arc<str>) -> Option<T> {
        self.get()
    }
}

impl<T: Clone + Send + Sync + 'static> sealed::Uses for &[Provided<T>] {
    type Values = Vec<T>;
    type Wires = Vec<Provided<T>>;

    fn declare(self, declared: &mut Declared) -> Vec<Provided<T>> {
        declared.uses.extend(self.iter().map(Provided::as_value));
        self.to_vec()
    }
}

impl<T: Clone + Send + Sync + 'static> Wire for Vec<Provided<T>> {
    type Values = Vec<T>;

    fn take(self, _: &Arc<str>) -> Option<Vec<T>> {
        self.iter().map(Provided::get).collect()
    }
}

impl<T: Send + Sync + 'static> sealed::Uses for Provides<T> {
    type Values = Provider<T>;
    type Wires = Given<T>;

    fn declare(self, declared: &mut Declared) -> Given<T> {
        declared.provides.push(Box::new(self.0.clone()));
        Given(self.0)
    }
}

impl<T: Send + Sync + 'static> Wire for Given<T> {
    type Values = Provider<T>;

    fn take(self, by: &Arc<str>) -> Option<Provider<T>> {
        Some(self.0.provider_for(by))
    }
}

macro_rules! tuples {
    ($(($($name:ident)*))*) => { $(
        impl<$($name: sealed::Uses),*> sealed::Uses for ($($name,)*) {
            type Values = ($($name::Values,)*);
            type Wires = ($($name::Wires,)*);

            #[allow(non_snake_case, unused_variables, clippy::unused_unit)]
            fn declare(self, declared: &mut Declared) -> Self::Wires {
                let ($($name,)*) = self;
                ($($name.declare(declared),)*)
            }
        }

        impl<$($name: Wire),*> Wire for ($($name,)*) {
            type Values = ($($name::Values,)*);

            #[allow(non_snake_case, unused_variables)]
            fn take(self, by: &Arc<str>) -> Option<Self::Values> {
                let ($($name,)*) = self;
                Some(($($name.take(by)?,)*))
            }
        }
    )* };
}

tuples! { () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) }
