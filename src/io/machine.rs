//! What this machine can bear, as Linux tells it under `/proc` and `/sys`. Elsewhere nothing is known, and a node there becomes a
//! supernode only where the ring is small.

use crate::overlay::tier::Facts;
use std::fs;
use std::path::Path;

/// Measures now; `None` where the system does not tell.
pub fn facts() -> Option<Facts> {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let memory = memory(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let load = load(&fs::read_to_string("/proc/loadavg").ok()?)?;
    Some(Facts { processors, memory, load, battery: battery(Path::new("/sys/class/power_supply")) })
}

/// MiB available, of `/proc/meminfo`.
fn memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

/// The load average of the last minute in hundredths, of `/proc/loadavg`.
fn load(text: &str) -> Option<u32> {
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    load.is_finite().then_some((load.max(0.0) * 100.0) as u32)
}

/// True when there is a battery and it is being emptied.
fn battery(supplies: &Path) -> bool {
    let Ok(entries) = fs::read_dir(supplies) else { return false };
    entries.flatten().any(|entry| {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        // What hangs on the machine (a mouse) has a scope of its own.
        read("type").trim() == "Battery" && read("scope").trim() != "Device" && read("status").trim() == "Discharging"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_read() {
        assert_eq!(memory("MemTotal: 4000 kB\nMemAvailable:    2097152 kB\n"), Some(2048));
        assert_eq!(memory("MemTotal: 4000 kB\n"), None);
        assert_eq!(load("1.25 0.80 0.50 2/345 6789\n"), Some(125));
        assert_eq!((load(""), load("nan 1 1")), (None, None));
    }

    #[test]
    fn a_battery_that_is_emptied_is_seen() {
        let dir = std::env::temp_dir().join(format!("chordial-power-{}", std::process::id()));
        let put = |supply: &str, name: &str, text: &str| {
            fs::create_dir_all(dir.join(supply)).unwrap();
            fs::write(dir.join(supply).join(name), text).unwrap();
        };
        assert!(!battery(&dir));
        put("AC", "type", "Mains\n");
        put("mouse", "type", "Battery\n");
        put("mouse", "scope", "Device\n");
        put("mouse", "status", "Discharging\n");
        put("BAT0", "type", "Battery\n");
        put("BAT0", "status", "Charging\n");
        assert!(!battery(&dir));
        put("BAT0", "status", "Discharging\n");
        assert!(battery(&dir));
        fs::remove_dir_all(&dir).unwrap();
    }
}
