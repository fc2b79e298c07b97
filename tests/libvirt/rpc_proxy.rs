//! A socket between the CPI and libvirtd that lets one of their calls go wrong, or something happen around it. It knows
//! libvirt's framing: a length, a header, a payload. The CPI knows nothing of it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::sandbox::Sandbox;

const LIBVIRTD: &str = "/run/libvirt/libvirt-sock";

const CALL: u32 = 0;
const REPLY: u32 = 1;
const STREAM: u32 = 3;
const OK: u32 = 0;
const ERROR: u32 = 1;
const CONTINUE: u32 = 2;
/// `VIR_ERR_INTERNAL_ERROR`.
const INTERNAL_ERROR: u32 = 1;
/// The program whose messages only keep the connection alive.
const KEEPALIVE: u32 = 0x6b65_6570;

/// A thread of the CPI's takes note of a signal.
const SIGNAL_ARRIVES_WITHIN: Duration = Duration::from_millis(50);

/// What goes wrong at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Libvirt does nothing and answers with an error.
    Refused,
    /// The same with this number of an error (`virErrorNumber`) and this text.
    RefusedAs(u32, &'static str),
    /// Libvirt does it, and the connection is lost before it can say so.
    Lost,
    /// The CPI is killed before libvirt hears of the call.
    KilledBefore,
    /// Libvirt does it, and the CPI is killed before it knows.
    KilledAfter,
    /// The CPI is told to end, by SIGTERM or SIGINT, before libvirt hears of the call.
    Told,
    /// What the test has planned happens before libvirt hears of the call.
    Before,
    /// What the test has planned happens once libvirt has the call.
    Meanwhile,
    /// What the test has planned happens once libvirt has done it, before the CPI knows.
    After,
}

impl Fault {
    /// Those that need nothing further.
    pub const ALL: [Self; 5] = [
        Self::Refused,
        Self::Lost,
        Self::KilledBefore,
        Self::KilledAfter,
        Self::Told,
    ];

    pub fn kills(self) -> bool {
        matches!(self, Self::KilledBefore | Self::KilledAfter)
    }
}

/// Which call.
#[derive(Debug, Clone, Copy)]
pub enum At {
    /// The n-th of all, from 1.
    Number(usize),
    /// The n-th of this procedure of libvirt's remote protocol, from 1.
    Procedure(u32, usize),
    /// Each of this procedure whose flags, its last argument, have one of these: a libvirt that does not know them.
    Flags(u32, u32),
}

#[derive(Default)]
struct Plan {
    /// Procedures of libvirt's protocol, 0 for parts of streams.
    calls: Vec<u32>,
    fault: Option<(At, Fault)>,
    happened: bool,
    pid: Option<u32>,
    event: Option<Event>,
}

type Event = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Shared {
    plan: Mutex<Plan>,
    changed: Condvar,
}

#[derive(Clone)]
pub struct RpcProxy {
    pub socket: PathBuf,
    shared: Arc<Shared>,
}

impl RpcProxy {
    /// Listens at `socket`, for the machine's own libvirtd.
    pub fn new(socket: &Path) -> Self {
        Self::to(Path::new(LIBVIRTD), socket)
    }

    /// Listens at `socket`, for the libvirtd that listens at `libvirtd`.
    pub fn to(libvirtd: &Path, socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let libvirtd = libvirtd.to_owned();
        // Ends with the process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                // One that is down hangs up on the client.
                if let Ok(server) = UnixStream::connect(&libvirtd) {
                    Connection::start(client, server, &accepting);
                }
            }
        });
        Self {
            socket: socket.to_owned(),
            shared,
        }
    }

    /// Between this sandbox's CPI and the machine's own libvirtd.
    pub fn of(sandbox: &mut Sandbox) -> Self {
        let proxy = Self::new(&sandbox.directory().join("libvirt-sock"));
        sandbox.configure(json!({"libvirt": {"type": "socket", "socket": proxy.socket}}));
        proxy
    }

    /// Counts anew, and lets this fault happen once. Those that kill or signal want to know whom: see `set_pid`.
    pub fn plan(&self, fault: Option<(At, Fault)>) {
        *self.shared.plan.lock().unwrap() = Plan {
            fault,
            ..Plan::default()
        };
    }

    /// Counts anew, and lets this happen once, at this call.
    pub fn plan_event(&self, at: At, when: Fault, event: impl FnOnce() + Send + 'static) {
        *self.shared.plan.lock().unwrap() = Plan {
            fault: Some((at, when)),
            event: Some(Box::new(event)),
            ..Plan::default()
        };
    }

    /// Whom to kill or to tell.
    pub fn set_pid(&self, pid: u32) {
        self.shared.plan.lock().unwrap().pid = Some(pid);
        self.shared.changed.notify_all();
    }

    /// How many calls there were since `plan`, and whether the fault has happened.
    pub fn seen(&self) -> (usize, bool) {
        let plan = self.shared.plan.lock().unwrap();
        (plan.calls.len(), plan.happened)
    }
}

impl Shared {
    fn kill(&self) {
        self.signal("-KILL");
    }

    /// Asks for the end, in turns as `kill` and as Ctrl-C do, and gives the signal time to arrive.
    fn tell(&self) {
        let calls = self.plan.lock().unwrap().calls.len();
        self.signal(["-TERM", "-INT"][calls % 2]);
        thread::sleep(SIGNAL_ARRIVES_WITHIN);
    }

    fn signal(&self, signal: &str) {
        let mut plan = self.plan.lock().unwrap();
        while plan.pid.is_none() {
            plan = self.changed.wait(plan).unwrap();
        }
        crate::sandbox::run("kill", &[signal, &plan.pid.unwrap().to_string()]).unwrap();
    }

    fn let_it_happen(&self) {
        let event = self.plan.lock().unwrap().event.take();
        event.expect("an event that was planned")();
    }

    /// The fault that is due at the next call, if it is this one's turn.
    fn next_call(&self, procedure: u32, flags: u32) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap();
        plan.calls.push(procedure);
        let is_at = |at| match at {
            At::Number(number) => plan.calls.len() == number,
            At::Procedure(wanted, number) => {
                procedure == wanted && plan.calls.iter().filter(|called| **called == wanted).count() == number
            }
            At::Flags(wanted, unknown) => procedure == wanted && flags & unknown != 0,
        };
        match plan.fault {
            Some((at, fault)) if is_at(at) => {
                plan.happened = true;
                Some(fault)
            }
            _ => None,
        }
    }
}

/// One message, without its length.
struct Message(Vec<u8>);

impl Message {
    fn read(from: &mut UnixStream) -> Option<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length).ok()?;
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        from.read_exact(&mut rest).ok()?;
        Some(Self(rest))
    }

    fn write(&self, to: &mut UnixStream) -> Option<()> {
        let length = u32::try_from(self.0.len() + 4).unwrap();
        to.write_all(&length.to_be_bytes()).ok()?;
        to.write_all(&self.0).ok()
    }

    fn word(&self, index: usize) -> u32 {
        u32::from_be_bytes(self.0[4 * index..4 * index + 4].try_into().unwrap())
    }

    fn program(&self) -> u32 {
        self.word(0)
    }

    fn procedure(&self) -> u32 {
        self.word(2)
    }

    fn kind(&self) -> u32 {
        self.word(3)
    }

    fn serial(&self) -> u32 {
        self.word(4)
    }

    fn status(&self) -> u32 {
        self.word(5)
    }

    /// Most procedures' flags.
    fn last_word(&self) -> u32 {
        self.word(self.0.len() / 4 - 1)
    }

    /// The answer that libvirtd gives when a call fails.
    fn refusal(&self, number: u32, text: &str) -> Self {
        let kind = if self.kind() == CALL { REPLY } else { STREAM };
        let mut reply = self.0[..12].to_vec();
        let mut word = |value: u32| reply.extend(value.to_be_bytes());
        word(kind);
        word(self.serial());
        word(ERROR);
        word(number);
        // From nowhere in particular.
        word(0);
        word(1);
        word(u32::try_from(text.len()).unwrap());
        reply.extend(text.as_bytes());
        reply.resize(reply.len().next_multiple_of(4), 0);
        let mut word = |value: u32| reply.extend(value.to_be_bytes());
        // VIR_ERR_ERROR; no domain, no strings, two numbers, no network.
        for value in [2, 0, 0, 0, 0, 0, 0, 0] {
            word(value);
        }
        Self(reply)
    }
}

struct Connection {
    client: UnixStream,
    server: UnixStream,
    shared: Arc<Shared>,
    /// The call whose answer does not arrive.
    awaited: Mutex<Option<(u32, Fault)>>,
}

impl Connection {
    fn start(client: UnixStream, server: UnixStream, shared: &Arc<Shared>) {
        let connection = Arc::new(Self {
            client,
            server,
            shared: Arc::clone(shared),
            awaited: Mutex::new(None),
        });
        let upwards = Arc::clone(&connection);
        thread::spawn(move || {
            upwards.pass_calls();
            upwards.close();
        });
        thread::spawn(move || {
            connection.pass_answers();
            connection.close();
        });
    }

    fn close(&self) {
        for socket in [&self.client, &self.server] {
            // The other side may have been first.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn pass_calls(&self) -> Option<()> {
        let (mut client, mut server) = (self.client.try_clone().ok()?, self.server.try_clone().ok()?);
        let mut streams = Vec::new();
        loop {
            let message = Message::read(&mut client)?;
            match self.fault_at(&message, &mut streams) {
                None => {}
                Some(Fault::Refused) => {
                    message
                        .refusal(INTERNAL_ERROR, "injected fault")
                        .write(&mut client)?;
                    continue;
                }
                Some(Fault::RefusedAs(number, text)) => {
                    message.refusal(number, text).write(&mut client)?;
                    continue;
                }
                Some(Fault::KilledBefore) => {
                    self.shared.kill();
                    return None;
                }
                Some(Fault::Told) => self.shared.tell(),
                Some(Fault::Before) => self.shared.let_it_happen(),
                Some(Fault::Meanwhile) => {
                    message.write(&mut server)?;
                    self.shared.let_it_happen();
                    continue;
                }
                Some(fault) => *self.awaited.lock().unwrap() = Some((message.serial(), fault)),
            }
            message.write(&mut server)?;
        }
    }

    /// Calls count, of a stream's messages the first and the last.
    fn fault_at(&self, message: &Message, streams: &mut Vec<u32>) -> Option<Fault> {
        if message.program() == KEEPALIVE {
            return None;
        }
        let counts = match (message.kind(), message.status()) {
            (CALL, _) | (STREAM, OK) => true,
            (STREAM, CONTINUE) => !streams.contains(&message.serial()),
            _ => false,
        };
        if !counts {
            return None;
        }
        if message.kind() == STREAM {
            streams.push(message.serial());
        }
        let procedure = if message.kind() == CALL {
            message.procedure()
        } else {
            0
        };
        let fault = self.shared.next_call(procedure, message.last_word())?;
        // The messages in the middle of a stream have no answer that could be lost.
        match (message.kind(), message.status(), fault) {
            (STREAM, CONTINUE, Fault::Lost) => Some(Fault::Refused),
            (STREAM, CONTINUE, Fault::KilledAfter) => Some(Fault::KilledBefore),
            _ => Some(fault),
        }
    }

    fn pass_answers(&self) -> Option<()> {
        let (mut client, mut server) = (self.client.try_clone().ok()?, self.server.try_clone().ok()?);
        loop {
            let message = Message::read(&mut server)?;
            let awaited = *self.awaited.lock().unwrap();
            match awaited {
                Some((serial, fault))
                    if serial == message.serial() && [REPLY, STREAM].contains(&message.kind()) =>
                {
                    if fault == Fault::After {
                        *self.awaited.lock().unwrap() = None;
                        self.shared.let_it_happen();
                        message.write(&mut client)?;
                        continue;
                    }
                    if fault.kills() {
                        self.shared.kill();
                    }
                    return None;
                }
                _ => message.write(&mut client)?,
            }
        }
    }
}
