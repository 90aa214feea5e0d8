//! Numbers that are no time: `exp`, `nbf` and `iat` are numbers (RFC 7519 section 2). Of those that are, one before 1970 is long ago
//! and one after 9999 never comes.

use super::check::Cases;
use super::forge::Forge;

pub(super) fn cases(forge: &Forge<'_>, cases: &mut Cases) {
    for name in ["exp", "nbf", "iat"] {
        for number in [
            "1e309",
            "1e400",
            "-1e400",
            "1e99999999999999999999",
            "NaN",
            "-NaN",
            "nan",
            "Infinity",
            "-Infinity",
            "inf",
            "0x6b49d200",
            "0b1",
            "0o17",
            "01800000000",
            "00",
            "+1800000000",
            "1_800_000_000",
            "1800000000L",
            "1800000000n",
            "1,800,000,000",
            "1800000000.",
            ".1800000000e10",
            "1.8e",
            "1.8e+",
            "- 1",
            "--1",
            "1 800 000 000",
            "\u{ff11}\u{ff18}\u{ff10}\u{ff10}",
            "\u{661}\u{668}",
            "1/0",
            "",
        ] {
            cases.malformed(format!("{name} {number}"), forge.claim_as_text(name, number));
        }
        let digits = "9".repeat(4000);
        cases.malformed(format!("{name} of 4,000 digits"), forge.claim_as_text(name, &digits));
        cases.malformed(format!("{name} of 4,000 digits behind the point and 1e400"), {
            forge.claim_as_text(name, &format!("1.{digits}e400"))
        });
    }
    for number in ["-1", "-0.5", "-1e300", "-9223372036854775808", "-9223372036854775809"] {
        cases.bearer(format!("exp {number}"), forge.claim_as_text("exp", number), "expired");
        // Older than any token that may still be alive (T5).
        cases.malformed(format!("iat {number}"), forge.claim_as_text("iat", number));
    }
    for number in [
        "253402300800",
        "253402300799.5",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "340282366920938463463374607431768211456",
        "99999999999999999999999999999999999999999999999999",
        "1e12",
        "1e13",
        "1E+20",
        "1e308",
        "1.7976931348623157e308",
    ] {
        // It lives longer than any token may (T5).
        cases.malformed(format!("exp {number}"), forge.claim_as_text("exp", number));
        for name in ["nbf", "iat"] {
            cases.bearer(format!("{name} {number}"), forge.claim_as_text(name, number), "not_yet_valid");
        }
    }
    // Well-formed numbers of a time long ago.
    for number in ["-0", "-0.0", "0", "0.0", "0e10", "1e-400", "1e-10", "1e9", "1.0E9", "0.99999e9"] {
        let claims = forge.claim_as_text("exp", number);
        cases.bearer(format!("exp {number}"), claims, "expired");
    }
}
