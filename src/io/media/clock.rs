//! The monotonic clock of the machine, the same for all processes on it, so that recordings made by
//! two of them can be laid side by side.

use crate::core::Instant;

/// Now, in microseconds of `CLOCK_MONOTONIC`.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub fn now() -> Instant {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const CLOCK_MONOTONIC: i32 = 1;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the layout is that of a 64-bit Linux timespec, and `time` outlives the call. It cannot fail
    // for a clock that every Linux has; if it did, time would stand at zero.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &mut time) };
    Instant::from_micros(time.seconds.unsigned_abs() * 1_000_000 + time.nanoseconds.unsigned_abs() / 1000)
}

/// Now, in microseconds from the first call in this process: elsewhere recordings of one process only can be compared.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
#[allow(clippy::disallowed_methods)] // io reads the clock
pub fn now() -> Instant {
    static ZERO: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let zero = *ZERO.get_or_init(std::time::Instant::now);
    Instant::from_micros(u64::try_from(zero.elapsed().as_micros()).unwrap_or(u64::MAX))
}
