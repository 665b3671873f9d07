//! Panics in a simulated process: heard, not printed.

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

/// Runs something, and gives what a panic said, if there was one: whoever caught it.
pub(crate) fn heard<T>(run: impl FnOnce() -> T) -> (T, Option<String>) {
    listen();
    SAID.take();
    let before = LISTENING.replace(true);
    let value = run();
    LISTENING.set(before);
    let said = SAID.take();
    (value, (!said.is_empty()).then_some(said))
}

/// Runs something; a panic in it becomes an error that says what it said.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let (outcome, said) = heard(|| catch_unwind(AssertUnwindSafe(run)));
    outcome.map_err(|_| said.unwrap_or_default())
}
