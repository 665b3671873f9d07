//! The open loop's clock: which calls are due, and who may make them.
//!
//! tokio's timer is good to a millisecond, which is more than many calls take; a kernel timer
//! wakes one task of the thread when the next call is due.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

/// The most permits given at once: a generator that was held up catches up in pieces.
const BURST_MAX: u64 = 1 << 20;

/// Calls at a steady rate from a moment on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    start: Instant,
    interval_ns: f64,
}

impl Schedule {
    /// `rate` calls a second from `start` on, the first one at once.
    pub(crate) fn new(start: Instant, rate: f64) -> Self {
        Self { start, interval_ns: 1e9 / rate }
    }

    /// The moment call number `slot` is due, counted from 0.
    pub(crate) fn due_at(&self, slot: u64) -> Instant {
        self.start + Duration::from_nanos((slot as f64 * self.interval_ns) as u64)
    }

    /// How many calls are due at `now`, those of this very moment included.
    pub(crate) fn due_by(&self, now: Instant) -> u64 {
        let Some(passed) = now.checked_duration_since(self.start) else { return 0 };
        let mut due = (passed.as_nanos() as f64 / self.interval_ns) as u64;
        // Rounding may put a slot's moment just before or behind the quotient.
        while self.due_at(due) <= now {
            due += 1;
        }
        due
    }
}

/// Hands the slots of a schedule to the clients of one thread, in order.
#[derive(Debug)]
pub(crate) struct Slots {
    schedule: Schedule,
    due: Semaphore,
    issued: Cell<u64>,
    taken: Cell<u64>,
}

impl Slots {
    /// Slots of a schedule; [`Slots::keep_time`] has to run for any to become due.
    pub(crate) fn new(schedule: Schedule) -> Rc<Self> {
        Rc::new(Self {
            schedule,
            due: Semaphore::new(0),
            issued: Cell::new(0),
            taken: Cell::new(0),
        })
    }

    /// Waits for the next slot; answers when its call was due, or `None` when time is up.
    pub(crate) async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        let slot = self.taken.get();
        self.taken.set(slot + 1);
        Some(self.schedule.due_at(slot))
    }

    /// Slots that became due and were never called: the server, or the limit of calls in
    /// flight, did not keep up.
    pub(crate) fn left(&self) -> u64 {
        self.issued.get() - self.taken.get()
    }

    /// Makes slots due as time passes, until `end`.
    ///
    /// # Errors
    /// When the kernel refuses a timer.
    pub(crate) async fn keep_time(&self, end: Instant) -> std::io::Result<()> {
        let timer = Timer::new()?;
        let last_moment = end - Duration::from_nanos(1);
        loop {
            let now = Instant::now();
            let due = self.schedule.due_by(now.min(last_moment));
            let fresh = (due - self.issued.get()).min(BURST_MAX);
            self.issued.set(self.issued.get() + fresh);
            self.due.add_permits(usize::try_from(fresh).expect("bounded by BURST_MAX"));
            if now >= end {
                // Idle clients get to take what has just become due.
                tokio::task::yield_now().await;
                self.due.close();
                return Ok(());
            }
            timer.wait_until(self.schedule.due_at(self.issued.get()).min(end)).await?;
        }
    }
}

/// A kernel timer of nanoseconds on tokio's event loop.
struct Timer {
    descriptor: AsyncFd<OwnedFd>,
}

impl Timer {
    fn new() -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: the descriptor is open, and the `AsyncFd` owns it for as long as it lives.
        let descriptor = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        Ok(Self { descriptor: descriptor? })
    }

    async fn wait_until(&self, moment: Instant) -> std::io::Result<()> {
        let wait = moment.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            },
        };
        timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.descriptor.readable().await?;
            let mut expirations = [0; 8];
            let read =
                ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?));
            match read {
                Ok(outcome) => return outcome.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::{Builder, LocalOptions};

    #[test]
    fn slots_fall_due_at_the_rate() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1000.0);
        assert_eq!(schedule.due_at(0), start);
        assert_eq!(schedule.due_at(250), start + Duration::from_millis(250));
        assert_eq!(schedule.due_by(start), 1);
        assert_eq!(schedule.due_by(start + Duration::from_micros(999)), 1);
        assert_eq!(schedule.due_by(start + Duration::from_millis(10)), 11);
        assert_eq!(schedule.due_by(start - Duration::from_millis(1)), 0);
    }

    #[test]
    fn due_by_and_due_at_agree_at_odd_rates() {
        let start = Instant::now();
        for rate in [0.7, 3.0, 333.3, 77_777.0] {
            let schedule = Schedule::new(start, rate);
            for slot in [0, 1, 2, 10, 999, 123_456] {
                assert_eq!(schedule.due_by(schedule.due_at(slot)), slot + 1, "{rate} {slot}");
            }
        }
    }

    #[test]
    fn slots_that_nobody_took_are_counted() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let start = Instant::now();
            let slots = Slots::new(Schedule::new(start, 1000.0));
            slots.keep_time(start + Duration::from_millis(20)).await.unwrap();
            // Nobody took a slot in time: the calls of milliseconds 0 to 19 were never made.
            assert_eq!(slots.left(), 20);
            assert_eq!(slots.next().await, None, "time is up");
        });
    }

    #[test]
    fn a_slot_taken_late_keeps_its_moment() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let start = Instant::now() - Duration::from_millis(500);
            let slots = Slots::new(Schedule::new(start, 100.0));
            let keeper = Rc::clone(&slots);
            let end = Instant::now() + Duration::from_secs(600);
            let keeping = tokio::task::spawn_local(async move { keeper.keep_time(end).await });
            assert_eq!(slots.next().await, Some(start));
            assert_eq!(slots.next().await, Some(start + Duration::from_millis(10)));
            keeping.abort();
        });
    }
}
