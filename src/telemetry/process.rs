//! What the kernel knows of this process, read from `/proc/self` at each scrape.

use std::fs;

/// `proc_pid_stat(5)` counts in clock ticks, of which Linux has 100 a second on every architecture it shows to users.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process's own numbers; what cannot be read is absent rather than zero.
#[derive(Debug, Default, Clone, Copy)]
pub struct ProcessStats {
    /// User and system CPU time, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<f64>,
    /// The soft limit of open file descriptors.
    pub max_fds: Option<f64>,
    /// When the process started, in seconds since the Unix epoch.
    pub start_time_seconds: Option<f64>,
    /// Threads.
    pub threads: Option<f64>,
}

/// Reads the numbers now.
#[must_use]
pub fn read() -> ProcessStats {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = |number| stat_field(&stat, number).map(|ticks| ticks / TICKS_PER_SECOND);
    ProcessStats {
        cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| user + system),
        resident_bytes: line_value(&status, "VmRSS:").map(|kibibytes| kibibytes * 1024.0),
        // The directory's own descriptor is among those it lists.
        open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64),
        max_fds: line_value(&limits, "Max open files"),
        start_time_seconds: line_value(&kernel, "btime").zip(ticks(22)).map(|(boot, since)| boot + since),
        threads: stat_field(&stat, 20),
    }
}

/// Field `number` of `/proc/self/stat`, counted from 1 as its manual page does. The second field is the program's name
/// in parentheses and may hold spaces and parentheses itself.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// The first number after `name` on the line that starts with it.
fn line_value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_an_odd_program_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 9 0 12345 0 0";
        assert_eq!(stat_field(stat, 14), Some(250.0));
        assert_eq!(stat_field(stat, 15), Some(50.0));
        assert_eq!(stat_field(stat, 20), Some(9.0));
        assert_eq!(stat_field(stat, 22), Some(12345.0));
        assert_eq!(
            line_value("Max open files            1024                 4096                 files", "Max open files"),
            Some(1024.0)
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_all_of_them() {
        let stats = read();
        assert!(stats.cpu_seconds.is_some() && stats.max_fds.is_some_and(|limit| limit > 2.0));
        assert!(stats.resident_bytes.is_some_and(|bytes| bytes > 500_000.0));
        assert!(stats.open_fds.is_some_and(|fds| fds >= 3.0) && stats.threads.is_some_and(|threads| threads >= 1.0));
        let now = crate::clock::Timestamp::now().0 as f64;
        assert!(stats.start_time_seconds.is_some_and(|start| start <= now + 2.0 && start > now - 86_400.0));
    }
}
