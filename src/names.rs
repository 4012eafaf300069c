//! One table of words gives an enum its `Display` and its `FromStr`.

use std::fmt;

/// `names!(Overload: "refuse" Refuse, "retry" Retry)`: each variant with its name.
macro_rules! names {
    ($type:ident: $($name:literal $variant:ident),+) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self {
                    $($type::$variant => $name,)+
                })
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::names::UnknownName;

            fn from_str(text: &str) -> Result<$type, Self::Err> {
                match text {
                    $($name => Ok($type::$variant),)+
                    _ => Err($crate::names::UnknownName(&[$($name),+])),
                }
            }
        }
    };
}

pub(crate) use names;

/// A text is not one of the names that it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName(pub(crate) &'static [&'static str]);

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown name, it must be one of {}", self.0.join(", "))
    }
}

impl std::error::Error for UnknownName {}

#[cfg(test)]
mod tests {
    use crate::{Level, Overload};

    #[test]
    fn a_name_is_read_back_and_another_word_is_told_the_names() {
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!(format!("{:5}|", Level::Warn), "warn |");
        let error = "Retry".parse::<Overload>().unwrap_err().to_string();
        assert_eq!(error, "unknown name, it must be one of refuse, retry");
    }
}
