//! Libvirt's wait for a reply, mended. Libvirt's client waits in GLib's `g_main_loop_run`, which this executable takes
//! over: the loader finds a function here before it finds the one in GLib.
//!
//! What is wrong there, from libvirt 6.1 on:
//! - It waits for the socket only. When libvirt looks for what a program says on stderr, libssh may read from the socket
//!   the rest of a reply that takes more than a packet, and keeps it. So the call sleeps until something else comes: a
//!   keepalive message of libvirtd's, after 5 s, or the answer to one of ours. Without any, it sleeps for ever.
//! - When something else than the socket ends the wait (our keepalive message, another thread's call, a connection that
//!   is given up), its watch is left behind, and writes to the stack of a call that is over when the next one waits
//!   (CVE-2024-4418, mended in libvirt 10.4). Many sleeps over SSH end that way, and calls died of SIGSEGV or of "stack
//!   smashing detected" then.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::mem::transmute_copy;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How often a wait over SSH looks for what libssh may have kept, ms.
const LOOK_EVERY: c_int = 5;

static OVER_LIBSSH: AtomicBool = AtomicBool::new(false);

/// To be called before a connection to this URI is opened.
pub(super) fn prepare(uri: &str) {
    OVER_LIBSSH.store(is_over_libssh(uri), Relaxed);
}

/// Other ways to a host hide nothing from a wait, and TLS's handshake reads when it is told to.
fn is_over_libssh(uri: &str) -> bool {
    uri.split("://")
        .next()
        .is_some_and(|scheme| scheme.contains("libssh"))
}

type Loop = *mut c_void;
type Context = *mut c_void;
type Source = *mut c_void;
type Poll = unsafe extern "C" fn(*mut Polled, c_uint, c_int) -> c_int;

/// GLib's GPollFD, and poll(2)'s pollfd.
#[repr(C)]
struct Polled {
    fd: c_int,
    events: u16,
    happened: u16,
}

const POLLIN: u16 = 1;

/// GLib's own functions. There is no library to link with where only GLib's runtime is installed.
struct GLib {
    run: unsafe extern "C" fn(Loop),
    context: unsafe extern "C" fn(Loop) -> Context,
    new_timeout: unsafe extern "C" fn(c_uint) -> Source,
    set_poll: unsafe extern "C" fn(Context, Poll),
    attach: unsafe extern "C" fn(Source, Context) -> c_uint,
    find: unsafe extern "C" fn(Context, c_uint) -> Source,
    destroy: unsafe extern "C" fn(Source),
    unref: unsafe extern "C" fn(Source),
}

impl GLib {
    fn get() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<GLib>> = OnceLock::new();
        // SAFETY: these are the types that GLib's documentation gives the functions of these names.
        FOUND.get_or_init(|| unsafe { Self::look_up() }).as_ref()
    }

    unsafe fn look_up() -> Option<Self> {
        // SAFETY: as the caller has made sure.
        unsafe {
            Some(Self {
                run: next(c"g_main_loop_run")?,
                context: next(c"g_main_loop_get_context")?,
                new_timeout: next(c"g_timeout_source_new")?,
                set_poll: next(c"g_main_context_set_poll_func")?,
                attach: next(c"g_source_attach")?,
                find: next(c"g_main_context_find_source_by_id")?,
                destroy: next(c"g_source_destroy")?,
                unref: next(c"g_source_unref")?,
            })
        }
    }
}

unsafe extern "C" {
    fn poll(polled: *mut Polled, count: c_ulong, timeout: c_int) -> c_int;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The function of this name that comes after this executable's own.
///
/// # Safety
/// `T` is the type of a pointer to that function.
unsafe fn next<T>(name: &CStr) -> Option<T> {
    const RTLD_NEXT: isize = -1;
    // SAFETY: dlsym keeps no pointer; what it returns fits T, as the caller has made sure.
    unsafe {
        let function = dlsym(RTLD_NEXT as *mut c_void, name.as_ptr());
        (!function.is_null()).then(|| transmute_copy(&function))
    }
}

/// In place of GLib's, for libvirt.
///
/// # Safety
/// As GLib's: the loop is one, and stays one until it has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn g_main_loop_run(main_loop: Loop) {
    // Nobody can have called this without GLib.
    let Some(glib) = GLib::get() else {
        std::process::abort()
    };
    // SAFETY: the loop is alive and so is its context. A source that was found is alive, since only one thread at a time
    // uses the context, from before it waits until after.
    unsafe {
        let context = (glib.context)(main_loop);
        if OVER_LIBSSH.load(Relaxed) {
            (glib.set_poll)(context, poll_in_steps);
        }
        let watch = newest_source(glib, context);
        (glib.run)(main_loop);
        let left = watch.map_or(null_mut(), |watch| (glib.find)(context, watch));
        if !left.is_null() {
            (glib.destroy)(left);
        }
    }
}

/// What was attached last: libvirt's watch. Sources of a context are numbered in turn, and only a new one tells how far.
///
/// # Safety
/// The context is one.
unsafe fn newest_source(glib: &GLib, context: Context) -> Option<c_uint> {
    // SAFETY: as the caller has made sure; the new source is referred to until the end.
    unsafe {
        let next = (glib.new_timeout)(c_uint::MAX);
        let number = (glib.attach)(next, context);
        (glib.destroy)(next);
        (glib.unref)(next);
        number.checked_sub(1).filter(|number| *number > 0)
    }
}

/// poll(2), which says after a while that there may be something to read. Libvirt looks, and waits again if not.
///
/// # Safety
/// As poll's: there are as many of them.
unsafe extern "C" fn poll_in_steps(polled: *mut Polled, count: c_uint, timeout: c_int) -> c_int {
    let step = if (0..LOOK_EVERY).contains(&timeout) {
        timeout
    } else {
        LOOK_EVERY
    };
    // SAFETY: as the caller has made sure.
    let (happened, polled) = unsafe {
        let happened = poll(polled, c_ulong::from(count), step);
        if happened != 0 || step == timeout || polled.is_null() {
            return happened;
        }
        (happened, std::slice::from_raw_parts_mut(polled, count as usize))
    };
    polled
        .iter_mut()
        .filter(|polled| polled.events & POLLIN != 0)
        .fold(happened, |happened, polled| {
            polled.happened |= POLLIN;
            happened + 1
        })
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_waits_over_libssh_look_for_more() {
        for (uri, is) in [
            ("qemu+libssh://root@h/system?no_tty=1", true),
            ("qemu+libssh2://h/system", true),
            ("qemu+tls://libssh/system", false),
            ("qemu+ssh://h/system", false),
        ] {
            assert_eq!(is_over_libssh(uri), is, "{uri}");
        }
    }

    /// As libvirt waits, with a watch on which nothing happens, and is woken by another thread.
    #[test]
    fn a_wait_that_another_thread_ends_leaves_no_watch_behind() {
        let glib = GLib::get().unwrap();
        // SAFETY: these are GLib's types. All that is made here is alive until the end of the process.
        unsafe {
            let new_context: unsafe extern "C" fn() -> Context = next(c"g_main_context_new").unwrap();
            let new_loop: unsafe extern "C" fn(Context, c_int) -> Loop = next(c"g_main_loop_new").unwrap();
            let quit: unsafe extern "C" fn(Loop) = next(c"g_main_loop_quit").unwrap();
            let context = new_context();
            let main_loop = new_loop(context, 0);
            for _ in 0..2 {
                let watch = (glib.attach)((glib.new_timeout)(c_uint::MAX), context);
                assert!(!(glib.find)(context, watch).is_null());
                let address = main_loop as usize;
                let other = thread::spawn(move || {
                    thread::sleep(Duration::from_millis(50));
                    quit(address as Loop);
                });
                g_main_loop_run(main_loop);
                other.join().unwrap();
                assert!((glib.find)(context, watch).is_null());
            }
        }
    }

    #[test]
    fn a_poll_in_which_nothing_happens_says_that_there_may_be_something_to_read() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let looked_at = |events| Polled {
            fd,
            events,
            happened: 0,
        };
        let mut polled = [looked_at(POLLIN), looked_at(0)];
        // SAFETY: there are two.
        let mut poll = |timeout| unsafe { poll_in_steps(polled.as_mut_ptr(), 2, timeout) };
        assert_eq!(poll(0), 0);
        assert_eq!(poll(-1), 1);
        assert_eq!(polled.map(|polled| polled.happened), [POLLIN, 0]);
    }
}
