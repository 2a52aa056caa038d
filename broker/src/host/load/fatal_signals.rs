//! Reports a fatal signal on standard error before the process ends: the signal, and the plugin library in
//! which it occurred. Owns the table of loaded libraries that the signal handler reads. The handler allocates
//! nothing and takes no lock; the signal then has its usual effect.
//!
//! This is part of the library although a signal handler concerns the whole process. Only this crate knows
//! the addresses of the libraries it has mapped from memory files, whose names a core file does not contain.
//! An embedding program could not read that table in its own handler without the same unsafe code. It is
//! installed only on request.

use parking_lot::Mutex;
use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::Path,
    ptr::{null, null_mut},
    sync::{
        OnceLock,
        atomic::{AtomicPtr, AtomicUsize, Ordering},
    },
};

use super::inspect::PluginManifest;

const SIGNALS: [(libc::c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
];
/// Maximum number of libraries in the table.
const MAX_LIBRARIES: usize = 256;
/// Bytes of the stack that are searched for a return address in a library.
const SEARCHED_STACK: usize = 64 * 1024;

/// One loaded library: the addresses of its mapping and of its code, and its name. Not changed once `COUNT`
/// includes it.
struct LoadedLibrary {
    start: AtomicUsize,
    end: AtomicUsize,
    code_start: AtomicUsize,
    code_end: AtomicUsize,
    name: AtomicPtr<u8>,
    name_bytes: AtomicUsize,
}

static TABLE: [LoadedLibrary; MAX_LIBRARIES] = [const {
    LoadedLibrary {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        code_start: AtomicUsize::new(0),
        code_end: AtomicUsize::new(0),
        name: AtomicPtr::new(null_mut()),
        name_bytes: AtomicUsize::new(0),
    }
}; MAX_LIBRARIES];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Held while a library is added; never by the handler.
static ADDING: Mutex<()> = Mutex::new(());
/// The previous actions of the signals, in their order.
static PREVIOUS: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();

/// Adds a loaded library to the table. `copy` is the mapped file, `path` the file that it was copied from.
pub(super) fn add_library(copy: &File, path: &Path, manifest: &PluginManifest) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Ok(metadata) = copy.metadata() else { return };
    let Some((start, end)) = range_of(&maps, metadata.ino(), "") else { return };
    let (code_start, code_end) = range_of(&maps, metadata.ino(), "x").unwrap_or_default();
    let name = format!("{} {} ({})", manifest.name, manifest.version, path.display());
    let name: &'static str = Box::leak(name.into_boxed_str());
    let _adding = ADDING.lock();
    let index = COUNT.load(Ordering::Acquire);
    if let Some(library) = TABLE.get(index) {
        library.start.store(start, Ordering::Relaxed);
        library.end.store(end, Ordering::Relaxed);
        library.code_start.store(code_start, Ordering::Relaxed);
        library.code_end.store(code_end, Ordering::Relaxed);
        library.name.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
        library.name_bytes.store(name.len(), Ordering::Relaxed);
        COUNT.store(index + 1, Ordering::Release);
    }
}

/// Returns the first and last address at which the memory file with this inode is mapped, optionally with
/// this permission.
fn range_of(maps: &str, inode: u64, permission: &str) -> Option<(usize, usize)> {
    let ranges = maps.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let is_permitted = fields.next()?.contains(permission);
        let number = fields.nth(2)?;
        let is_memory_file = fields.next().is_some_and(|name| name.starts_with("/memfd:"));
        if number.parse() != Ok(inode) || !is_memory_file || !is_permitted {
            return None;
        }
        Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
    });
    ranges.reduce(|all, next| (all.0.min(next.0), all.1.max(next.1)))
}

impl LoadedLibrary {
    /// Returns the name of the library, and the offset of an address in it.
    fn describe(&self, address: usize) -> (&'static str, usize) {
        let name = self.name.load(Ordering::Relaxed);
        // SAFETY: called for libraries that `COUNT` includes, so both are those of a string that was leaked.
        let bytes = unsafe { std::slice::from_raw_parts(name, self.name_bytes.load(Ordering::Relaxed)) };
        (std::str::from_utf8(bytes).unwrap_or("?"), address - self.start.load(Ordering::Relaxed))
    }
}

fn library_with(
    address: usize,
    start: fn(&LoadedLibrary) -> &AtomicUsize,
    end: fn(&LoadedLibrary) -> &AtomicUsize,
) -> Option<&'static LoadedLibrary> {
    TABLE[..COUNT.load(Ordering::Acquire)].iter().find(|library| {
        (start(library).load(Ordering::Relaxed)..end(library).load(Ordering::Relaxed)).contains(&address)
    })
}

/// Returns the library that is mapped at an address, and the offset in it.
fn library_at(address: usize) -> Option<(&'static str, usize)> {
    library_with(address, |library| &library.start, |library| &library.end)
        .map(|library| library.describe(address))
}

/// Returns the library that contains an address if it is a return address: the instruction before it is a
/// call.
fn library_returned_to(address: usize) -> Option<(&'static str, usize)> {
    let library = library_with(address, |library| &library.code_start, |library| &library.code_end)?;
    if address - library.code_start.load(Ordering::Relaxed) < 8 || !is_behind_call(address) {
        return None;
    }
    Some(library.describe(address))
}

/// Returns whether the instruction before an address is a call. At least eight bytes of code precede it.
fn is_behind_call(address: usize) -> bool {
    if !cfg!(target_arch = "x86_64") {
        return true;
    }
    // SAFETY: mapped code of a library that is never unloaded, which is at least eight bytes long before the
    // address.
    let code = unsafe { std::slice::from_raw_parts((address - 8) as *const u8, 8) };
    // a relative call, or a call through register or memory: ff /2
    let indirect = |length: usize| code[8 - length] == 0xff && code[9 - length] & 0x38 == 0x10;
    code[3] == 0xe8 || [2, 3, 6, 7].into_iter().any(indirect)
}

/// Installs handlers that report SIGSEGV, SIGBUS, SIGABRT, SIGILL and SIGFPE on standard error, with the
/// plugin library of the program counter or of its caller. The signal then has its previous effect, which
/// usually ends the process. Call it once, at the start of `main`, in programs that own their signals.
pub fn report_fatal_signals() {
    let mut installed = false;
    PREVIOUS.get_or_init(|| {
        installed = true;
        SIGNALS.map(|(signal, _)| {
            // SAFETY: all bytes zero is a valid `sigaction`: the default action, no flags, an empty mask.
            let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: reads the action in force into a local; fails for unknown signals only, and these are
            // known.
            unsafe { libc::sigaction(signal, null(), &mut previous) };
            previous
        })
    });
    if !installed {
        return;
    }
    for (signal, _) in SIGNALS {
        // SAFETY: as above.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
        action.sa_sigaction = handler as usize;
        // on the alternate stack if the thread has one: its own stack may have overflowed
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and calls only what a handler may.
        unsafe { libc::sigaction(signal, &action, null_mut()) };
    }
}

/// Writes the line and restores the previous action, under which the faulting instruction runs again. A
/// signal that was sent by a call ends the process.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let position = SIGNALS.iter().position(|(number, _)| *number == signal);
    let mut line = Line::default();
    line.text("fatal signal ").text(position.map_or("?", |at| SIGNALS[at].1));
    // SAFETY: the kernel passes a `ucontext_t` to handlers with SA_SIGINFO; it is read only.
    let (counter, stack) = unsafe { registers(context) };
    match library_at(counter) {
        Some((name, offset)) => line.text(" in plugin library ").text(name).text(" offset=").hex(offset),
        None => match caller(stack) {
            Some((name, offset)) => line
                .text(" outside the plugin libraries; the innermost library on the stack is ")
                .text(name)
                .text(" offset=")
                .hex(offset),
            None => line.text(" outside the plugin libraries"),
        },
    };
    line.text(" pc=").hex(counter).text("\n");
    line.write();
    // SAFETY: the kernel passes a valid `siginfo_t`; it is read only.
    let sent = unsafe { (*info).si_code } <= 0;
    match (PREVIOUS.get(), position) {
        (Some(previous), Some(at)) if !sent => {
            // SAFETY: the action is what `sigaction` returned for this signal; the call is async-signal-safe.
            unsafe { libc::sigaction(signal, &previous[at], null_mut()) };
        }
        _ => {
            // no instruction raises it again, which a handler of std relies on; it is delivered when this
            // handler returns
            // SAFETY: both calls are async-signal-safe.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
    }
}

/// Returns the innermost plugin library with a return address on the stack. A word can be left over from an
/// earlier call, so this is a hint, not a backtrace.
fn caller(stack: usize) -> Option<(&'static str, usize)> {
    let mut words = [0usize; 128];
    let chunk = size_of_val(&words);
    for start in (stack..stack.checked_add(SEARCHED_STACK)?).step_by(chunk) {
        let local = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: chunk };
        let remote = libc::iovec { iov_base: start as *mut libc::c_void, iov_len: chunk };
        // SAFETY: a system call that copies at most as many bytes into `words` as fit; unmapped addresses
        // make it fail instead of faulting.
        let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
        let read = usize::try_from(read).ok().filter(|read| *read > 0)?;
        let found = words[..read / size_of::<usize>()].iter().find_map(|word| library_returned_to(*word));
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Returns the program counter and the stack pointer at the signal; zero on other processors.
///
/// # Safety
/// `context` must be the value that the kernel passed to a handler with SA_SIGINFO.
unsafe fn registers(context: *mut libc::c_void) -> (usize, usize) {
    let context = context.cast::<libc::ucontext_t>();
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the caller passes a valid context.
        let registers = unsafe { &(*context).uc_mcontext.gregs };
        (registers[libc::REG_RIP as usize] as usize, registers[libc::REG_RSP as usize] as usize)
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: the caller passes a valid context.
        let machine = unsafe { &(*context).uc_mcontext };
        (machine.pc as usize, machine.sp as usize)
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = context;
        (0, 0)
    }
}

/// A text of bounded length, built without allocating.
struct Line {
    bytes: [u8; 1024],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line { bytes: [0; 1024], length: 0 }
    }
}

impl Line {
    fn text(&mut self, text: &str) -> &mut Self {
        for byte in text.bytes() {
            // the last byte is reserved for the end of the line
            if self.length + 1 < self.bytes.len() || byte == b'\n' && self.length < self.bytes.len() {
                self.bytes[self.length] = byte;
                self.length += 1;
            }
        }
        self
    }

    fn hex(&mut self, number: usize) -> &mut Self {
        self.text("0x");
        let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let value = (number >> (digit * 4)) & 0xf;
            self.text(&"0123456789abcdef"[value..=value]);
        }
        self
    }

    fn write(&self) {
        // SAFETY: async-signal-safe; the bytes are those of this struct.
        _ = unsafe { libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_truncated_and_numbers_are_hexadecimal() {
        let mut line = Line::default();
        line.text("at ").hex(0).text(" ").hex(0x7f00_dead_beef).text("\n");
        assert_eq!(&line.bytes[..line.length], b"at 0x0 0x7f00deadbeef\n");
        line.text(&"x".repeat(5000)).text("\n");
        assert_eq!((line.length, line.bytes[line.length - 1]), (1024, b'\n'));
    }

    #[test]
    fn the_address_range_of_a_library_is_read_from_proc_maps() {
        let maps = "7f10-7f20 r--p 00000000 00:01 77  /memfd:libx.so (deleted)\n\
                    7f20-7f30 r-xp 00010000 00:01 77  /memfd:libx.so (deleted)\n\
                    7f40-7f50 r-xp 00010000 00:01 77  /usr/lib/liby.so\n\
                    8000-9000 r-xp 00010000 00:01 78  /memfd:libz.so (deleted)\n";
        assert_eq!(range_of(maps, 77, ""), Some((0x7f10, 0x7f30)));
        assert_eq!(range_of(maps, 77, "x"), Some((0x7f20, 0x7f30)));
        assert_eq!(range_of(maps, 5, ""), None);
    }

    #[test]
    fn an_address_is_resolved_to_its_library() {
        let mut code = [0; 8192];
        code[11] = 0xe8;
        let copy = super::super::library_file::sealed_copy(Path::new("libx.so"), &code).unwrap();
        // SAFETY: a private mapping of a file that no other process can change, at an address the kernel
        // chooses; never unmapped.
        let address = unsafe {
            libc::mmap(
                null_mut(),
                8192,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE,
                std::os::fd::AsRawFd::as_raw_fd(&copy),
                0,
            )
        } as usize;
        let manifest = PluginManifest { name: "x".into(), version: "1.2.3".into(), ..Default::default() };
        add_library(&copy, Path::new("/lib/libx.so"), &manifest);
        assert_eq!(library_at(address + 5000), Some(("x 1.2.3 (/lib/libx.so)", 5000)));
        assert_eq!(library_at(address + 8192), None);
        assert_eq!(library_at(0), None);
        let on_stack = std::hint::black_box([0, address + 100, address + 16]);
        assert_eq!(caller(on_stack.as_ptr() as usize), Some(("x 1.2.3 (/lib/libx.so)", 16)));
        assert_eq!(caller(8), None, "an unmapped address");
    }
}
