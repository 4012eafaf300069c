//! The macro `names!` implements `Display` and `FromStr` for an enum from one table of
//! names, so that the two cannot contradict each other. Options of the program and fields
//! of the JSON answers use these names.

/// `names!(Overload: "refuse" Refuse, "retry" Retry)` gives each variant its name.
/// Parsing any other text is an error that lists all names. Names are case-sensitive.
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
            type Err = $crate::ConfigError;

            fn from_str(text: &str) -> Result<$type, Self::Err> {
                match text {
                    $($name => Ok($type::$variant),)+
                    _ => Err($crate::ConfigError::unknown_name(&[$($name),+])),
                }
            }
        }
    };
}

pub(crate) use names;

#[cfg(test)]
mod tests {
    use crate::{Level, Overload};

    #[test]
    fn a_name_is_parsed_and_the_error_for_another_text_lists_the_names() {
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!(format!("{:5}|", Level::Warn), "warn |");
        let error = "Retry".parse::<Overload>().unwrap_err().to_string();
        assert_eq!(error, "unknown name, it must be one of refuse, retry");
    }
}
