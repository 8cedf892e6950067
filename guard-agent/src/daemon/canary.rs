//! Proof that the programs decide: a child with a nonce in its label tries harmless operations.
//!
//! An error number alone proves nothing, because file modes and other security modules answer the
//! same. Each operation must work before the child is labelled, fail with the declared error
//! afterwards, and be reported by the kernel's own event with the nonce.

use super::labelling;
use crate::kernel::{EventStream, Kernel, KernelError};
use guard_common::action::{Action, EACCES, EAGAIN};
use guard_common::decide::Reason;
use guard_common::event::{Event, Verdict};
use guard_common::label::{CANARY_SUBJECT, LabelRequest};
use std::io::{self, BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Operations of the canary, in the order in which the child reports them.
const OPERATIONS: [Action; 4] = [Action::FileRead, Action::Exec, Action::NetConnect, Action::UnixConnect];

/// How long it may take until events of every operation found room. Others can fill the ring, and keep the agent
/// from proving anything for as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why enforcement is not proven.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// The child could not be run or did not answer.
    #[error("the start-up check could not run: {0}")]
    Child(String),
    /// The kernel module failed.
    #[error("the start-up check could not run: {0}")]
    Kernel(#[from] KernelError),
    /// An operation fails without Guard, so its denial would prove nothing.
    #[error(
        "the start-up check proves nothing: {action} already fails without Guard (errno {errno}); remove what forbids it to the agent's own child"
    )]
    Control {
        /// The action.
        action: &'static str,
        /// What it failed with.
        errno: i32,
    },
    /// An operation that must be denied was not.
    #[error(
        "the kernel does not enforce: {action} was answered with errno {errno} instead of {expected}; check that `bpf` is in /sys/kernel/security/lsm (guardctl doctor)"
    )]
    NotDenied {
        /// The action.
        action: &'static str,
        /// What it was answered with; 0 is success.
        errno: i32,
        /// What a denial is answered with.
        expected: i32,
    },
    /// A denial was not reported.
    #[error(
        "the start-up check proves nothing: {0} was refused, but not by Guard's own program, whose event did not come; another security module may have answered first"
    )]
    NotReported(&'static str),
    /// A denial was Guard's, but no decision of the policy.
    #[error(
        "the kernel does not enforce the policy: {action} was denied, but not by its tables (reason {reason}, generation {generation})"
    )]
    NotDecided {
        /// The action.
        action: &'static str,
        /// Why it was denied.
        reason: &'static str,
        /// What was live for the kernel; 0 = nothing.
        generation: u64,
    },
}

/// Proves enforcement of the live generation, whose number is `generation`. `private` is a directory that
/// is closed to others. Events of others that are
/// read meanwhile are kept in `early`.
///
/// # Errors
/// What is not proven.
pub(super) fn prove(
    kernel: &mut Kernel,
    events: &mut EventStream,
    generation: u64,
    private: &Path,
    early: &mut Vec<Event>,
) -> Result<(), CanaryError> {
    let child_error = |error: io::Error| CanaryError::Child(error.to_string());
    let socket = private.join("canary.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(child_error)?;
    let mut canary = Canary::start(&socket).map_err(child_error)?;
    for (action, errno) in OPERATIONS.iter().zip(canary.round().map_err(child_error)?) {
        if errno != 0 {
            return Err(CanaryError::Control { action: action.row().name, errno });
        }
    }
    let nonce = nonce().map_err(child_error)?;
    let pid = canary.child.id() as i32;
    let (_, start_ticks) =
        labelling::stat(pid).ok_or_else(|| CanaryError::Child(format!("process {pid} is gone")))?;
    let request = LabelRequest::attach(start_ticks, CANARY_SUBJECT).with_session(nonce);
    kernel.label_requested(&[(pid, request)])?;
    let is_canarys = |event: &Event| {
        event.session == nonce && event.subject == CANARY_SUBJECT && event.verdict == Verdict::Denied as u8
    };
    let mut reports = Reports { is_canarys, generation, seen: 0, undecided: None, early };
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Room for its events: others may have filled the ring, and may fill it again meanwhile.
        reports.read(events);
        let answers = match canary.round() {
            Ok(answers) => answers,
            Err(error) => {
                // Whoever is refused everything cannot answer either: the kernel says why.
                reports.read(events);
                reports.missing()?;
                return Err(child_error(error));
            }
        };
        for (action, errno) in OPERATIONS.iter().zip(answers) {
            // Until 6.1 the kernel may not hand out the label where forks abound: no answer yet.
            if errno != EACCES && errno != EAGAIN {
                return Err(CanaryError::NotDenied { action: action.row().name, errno, expected: EACCES });
            }
        }
        // An event is in the ring before the operation is answered.
        reports.read(events);
        match reports.missing()? {
            None => break,
            Some(action) if Instant::now() > deadline => return Err(CanaryError::NotReported(action)),
            Some(_) => {}
        }
    }
    drop((canary, listener));
    let _ = std::fs::remove_file(&socket);
    Ok(())
}

/// What the kernel reported of the canary's operations.
struct Reports<'a, F> {
    is_canarys: F,
    generation: u64,
    /// Actions that were reported as denied by this generation, as bits.
    seen: u64,
    undecided: Option<CanaryError>,
    /// All events that were read, for the reader that takes over.
    early: &'a mut Vec<Event>,
}

impl<F: Fn(&Event) -> bool> Reports<'_, F> {
    /// Reads what is in the ring.
    fn read(&mut self, events: &mut EventStream) {
        events.drain(usize::MAX, |event| {
            self.early.push(*event);
            if !(self.is_canarys)(event) || event.reason == Reason::StorageBusy as u8 {
            } else if event.reason == Reason::Policy as u8 && event.generation == self.generation {
                self.seen |= event.actions;
            } else {
                self.undecided.get_or_insert_with(|| not_decided(event));
            }
        });
    }

    /// The first operation that was not reported.
    fn missing(&mut self) -> Result<Option<&'static str>, CanaryError> {
        match self.undecided.take() {
            Some(error) => Err(error),
            None => {
                let missing = OPERATIONS.iter().find(|action| self.seen & action.bit() == 0);
                Ok(missing.map(|action| action.row().name))
            }
        }
    }
}

/// A denial that no table of the live generation gave.
fn not_decided(event: &Event) -> CanaryError {
    let action = OPERATIONS.iter().find(|action| event.actions & action.bit() != 0);
    CanaryError::NotDecided {
        action: action.map_or("an operation", |action| action.row().name),
        reason: Reason::from_number(event.reason).map_or("unknown", Reason::name),
        generation: event.generation,
    }
}

fn nonce() -> io::Result<u64> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    // 0 means "no session".
    Ok(u64::from_ne_bytes(bytes).max(1))
}

/// The child, and the two pipes to it.
struct Canary {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Canary {
    fn start(socket: &Path) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("canary")
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("the child has no pipes");
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok(Self { child, input, output })
    }

    /// Has the child try everything once; returns the error numbers.
    fn round(&mut self) -> io::Result<Vec<i32>> {
        self.input.write_all(b"go\n")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let numbers: Vec<i32> =
            line.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        if numbers.len() == OPERATIONS.len() {
            Ok(numbers)
        } else {
            Err(io::Error::other(format!("the child answered {line:?}")))
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's side: for every line on standard input, tries every operation and prints the error
/// numbers. Ends with its input.
pub fn child(socket: &Path) -> io::Result<()> {
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    for line in io::stdin().lines() {
        line?;
        let results = [
            errno(std::fs::File::open("/dev/null").map(drop)),
            errno(Command::new("/proc/self/exe").arg("canary").arg("noop").status().map(drop)),
            errno(sender.connect("127.0.0.1:9")),
            errno(UnixStream::connect(socket).map(drop)),
        ];
        let [file, exec, net, unix] = results;
        let mut output = io::stdout().lock();
        writeln!(output, "{file} {exec} {net} {unix}")?;
        output.flush()?;
    }
    Ok(())
}

fn errno(result: io::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}
