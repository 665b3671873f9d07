//! What an actor's shell waits for beside its mailbox.

use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context};

/// Takes what actor `A` waits for, and calls it back. In a running company that is
/// actix' context; in the simulator it is a list of its own.
pub trait Waiting<A>: Sized {
    /// Calls `then` with what the future gives.
    fn when<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut A, &mut Self, T) + 'static,
    );

    /// Calls `then` after the pause.
    fn after(&mut self, pause: Duration, then: impl FnOnce(&mut A, &mut Self) + 'static);
}

impl<A: Actor<Context = Context<A>>> Waiting<A> for Context<A> {
    fn when<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut A, &mut Self, T) + 'static,
    ) {
        let waiting = actix::fut::wrap_future::<_, A>(future);
        self.spawn(waiting.map(|value, actor, context| then(actor, context, value)));
    }

    fn after(&mut self, pause: Duration, then: impl FnOnce(&mut A, &mut Self) + 'static) {
        self.run_later(pause, then);
    }
}
