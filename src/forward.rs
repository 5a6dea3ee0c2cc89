//! Forwards an async trait through pointers to its implementations.

/// Implements an async trait for pointers, such as `Arc`, to a type that implements it.
macro_rules! forward {
    ($port:ident for [$($pointer:ident),+] $methods:tt) => {
        $(forward!(@ $port $pointer $methods);)+
    };
    (@ $port:ident $pointer:ident {
        $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $output:ty)?;)+
    }) => {
        #[async_trait::async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: $port + ?Sized> $port for $pointer<T> {
            $(async fn $name(&self, $($arg: $type),*) $(-> $output)? {
                (**self).$name($($arg),*).await
            })+
        }
    };
}

pub(crate) use forward;
