//! Texts that are always the same, as types: contract names, versions, kinds.

/// Defines a type with one value, which is written as a fixed text and read from no other.
#[macro_export]
#[doc(hidden)]
macro_rules! constant_text {
    ($(#[$doc:meta])* $name:ident = $text:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name;

        impl $name {
            /// The text.
            pub const TEXT: &'static str = $text;
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(Self::TEXT)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(from)?;
                if text == Self::TEXT {
                    return Ok(Self);
                }
                Err(serde::de::Error::custom(format_args!("it must be {:?}", Self::TEXT)))
            }
        }
    };
}

pub use constant_text;
