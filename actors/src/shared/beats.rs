//! A clock's beats as an actor takes them.

use std::time::Duration;

use futures::stream::{Stream, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::IntervalStream;

/// An interval has passed.
#[derive(Clone, Copy, Debug)]
pub struct Beat;

/// A beat for each interval from now on. Who stood still gets one for all that it missed,
/// not all of them at once: nothing may seem to take long that only was not looked at.
pub fn beats(interval: Duration) -> impl Stream<Item = Beat> {
    let mut beats = interval_at(Instant::now() + interval, interval);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    IntervalStream::new(beats).map(|_| Beat)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn beats_that_were_missed_come_as_one() {
        let interval = Duration::from_millis(100);
        let mut beats = Box::pin(beats(interval));
        assert!(beats.next().now_or_never().is_none(), "the first one is an interval away");
        for _ in 0..3 {
            tokio::time::advance(30 * interval).await;
            assert!(beats.next().now_or_never().is_some());
            assert!(beats.next().now_or_never().is_none(), "a pause is one beat");
        }
        tokio::time::advance(interval).await;
        assert!(beats.next().now_or_never().is_some());
    }
}
