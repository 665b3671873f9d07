//! Panics in a simulated process: heard, not printed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static LISTENING: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Has panics that happen while somebody listens noted instead of printed.
fn listen() {
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if LISTENING.get() {
                SAID.set(info.to_string());
            } else {
                others(info);
            }
        }));
    });
}

/// Runs what catches its own unwinding, and gives what a panic said with its payload.
pub(crate) fn caught_unwind<T>(
    run: impl FnOnce() -> std::thread::Result<T>,
) -> Result<T, (Box<dyn Any + Send>, String)> {
    listen();
    let before = LISTENING.replace(true);
    let outcome = run();
    LISTENING.set(before);
    outcome.map_err(|payload| (payload, SAID.take()))
}

/// Runs something; a panic in it becomes an error that says what it said.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    caught_unwind(|| catch_unwind(AssertUnwindSafe(run))).map_err(|(_, said)| said)
}
