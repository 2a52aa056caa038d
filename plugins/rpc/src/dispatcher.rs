//! Dispatches calls: which method runs, on which thread, and with which reply. Never implements a method,
//! never blocks the thread that delivers.

use elbus_plugin_api::{
    CallError, Client, Code, Host, Qos, QueueBudget, Queued, Run, SHARE_FROM_BYTES, SharedBytes,
};
use elbus_protocol::rpc::{self, RpcFrame};

use crate::{
    job_queue::{Job, JobLimits, Jobs},
    reply_batch::ReplyBatch,
    reply_sender::{Caller, ReplySender},
};

/// A decoded request.
struct Request<'a> {
    call_id: u32,
    method: &'a [u8],
    params: &'a [u8],
}

pub(crate) struct Dispatcher {
    host: Host,
    /// The limit of queued bytes: a large reply that would exceed it is not sent.
    budget: QueueBudget,
    reply_sender: ReplySender,
    ordinary: Jobs,
    admin: Jobs,
}

/// The methods that a thread runs: slow ordinary calls do not delay administrators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobClass {
    Ordinary,
    Admin,
}

impl Dispatcher {
    pub(crate) fn new(host: Host) -> Self {
        let (ordinary, admin) = (Jobs::new(JobLimits::ORDINARY), Jobs::new(JobLimits::ADMIN));
        let budget = host.queue_budget();
        Dispatcher { host, budget, reply_sender: ReplySender::default(), ordinary, admin }
    }

    /// Starts sending replies as this client.
    pub(crate) fn open(&self, client: Client) {
        self.reply_sender.open(client, self.host.system_client());
    }

    /// Stops sending replies and ends the client's registration.
    pub(crate) fn close(&self) {
        self.reply_sender.close();
    }

    /// Answers the calls in a run of messages, in order. Returns whether the caller must flush.
    pub(crate) fn serve(&self, run: &Run<'_>) -> bool {
        let qos = if run.is_realtime() { Qos::REALTIME } else { Qos::NO };
        let caller = Caller { name: run.sender(), id: run.sender_id(), qos };
        let mut replies = ReplyBatch::take_spare();
        let mut dirty = false;
        for payload in run.payloads() {
            let Ok(RpcFrame::Request { call_id, method, params }) = rpc::decode_rpc(payload) else {
                continue;
            };
            let request = Request { call_id, method, params };
            let Some(answer) = self.answer(&caller, &request, &mut dirty) else { continue };
            match answer {
                Ok(result) if result.len() >= SHARE_FROM_BYTES => {
                    dirty |= self.reply_sender.send(&caller, &mut replies);
                    dirty |=
                        self.reply_sender.send_shared(&caller, &rpc::encode_reply(call_id, &result).into());
                }
                Ok(result) => replies.push_result(call_id, &result),
                Err(error) => replies.push_error(call_id, &error),
            }
            if replies.bytes() >= SHARE_FROM_BYTES {
                dirty |= self.reply_sender.send(&caller, &mut replies);
            }
        }
        dirty |= self.reply_sender.send(&caller, &mut replies);
        replies.keep_spare();
        dirty
    }

    /// Flushes the replies of [`serve`](Dispatcher::serve).
    pub(crate) fn flush(&self) {
        self.reply_sender.flush();
    }

    /// Returns the queued jobs of all threads.
    pub(crate) fn waiting(&self) -> Queued {
        let (ordinary, admin) = (self.ordinary.waiting(), self.admin.waiting());
        Queued { frames: ordinary.frames + admin.frames, bytes: ordinary.bytes + admin.bytes }
    }

    fn jobs(&self, class: JobClass) -> &Jobs {
        match class {
            JobClass::Ordinary => &self.ordinary,
            JobClass::Admin => &self.admin,
        }
    }

    /// Runs the jobs of a class one at a time, until [`end_work`](Dispatcher::end_work).
    pub(crate) fn work(&self, class: JobClass) {
        while let Some(job) = self.jobs(class).next() {
            let caller = Caller { name: &job.caller, id: job.caller_id, qos: job.qos };
            let wants_reply = job.call_id != rpc::NO_REPLY && caller.can_be_answered();
            let result = if class == JobClass::Ordinary
                && wants_reply
                && self.reply_sender.is_congested_caller(&caller)
            {
                Err(unread())
            } else {
                // authorised once more: the caller may have left meanwhile, or the rules may have changed
                self.host.call(&caller.call(&job.method, &job.params))
            };
            let result = result.and_then(|result| self.within_budget(result));
            if !wants_reply {
                continue;
            }
            let reply = match result {
                Ok(result) => rpc::encode_reply(job.call_id, &result),
                Err(error) => rpc::encode_error(job.call_id, error.code, error.text.as_bytes()),
            };
            let reply = SharedBytes::from(reply);
            if self.reply_sender.is_open() {
                self.reply_sender.send_shared(&caller, &reply);
                self.reply_sender.flush();
            } else {
                // stopped in the meantime, for example by this call: the reply comes from an unregistered
                // sender
                let last = ReplySender::default();
                last.open(self.host.system_client(), self.host.system_client());
                last.send_shared(&caller, &reply);
                last.flush();
            }
        }
    }

    /// Ends the thread of a class after its current job. Returns whether it is running one.
    pub(crate) fn end_work(&self, class: JobClass) -> bool {
        self.jobs(class).end()
    }

    /// Handles a call; returns the immediate reply, if any.
    fn answer(
        &self,
        caller: &Caller<'_>,
        request: &Request<'_>,
        dirty: &mut bool,
    ) -> Option<Result<Vec<u8>, CallError>> {
        let wants_reply = request.call_id != rpc::NO_REPLY && caller.can_be_answered();
        if wants_reply && self.reply_sender.is_congested_caller(caller) {
            return Some(Err(unread()));
        }
        let answer = self.call(caller, request, dirty).transpose()?;
        let answer = answer.and_then(|result| self.within_budget(result));
        wants_reply.then_some(answer)
    }

    /// Calls a quick method, or queues a slow one for the thread of its class and returns `None`.
    fn call(
        &self,
        caller: &Caller<'_>,
        request: &Request<'_>,
        dirty: &mut bool,
    ) -> Result<Option<Vec<u8>>, CallError> {
        let method = std::str::from_utf8(request.method)
            .map_err(|_| CallError::new(Code::BadData.rpc_code(), "method not UTF-8"))?;
        if method.is_empty() {
            return Err(CallError::new(rpc::METHOD_NOT_FOUND, ""));
        }
        // an unknown method is refused by the call, after the access rules are checked
        let traits = self.host.method_traits(method).unwrap_or_default();
        if traits.query && request.call_id == rpc::NO_REPLY {
            return Ok(None);
        }
        if traits.slow {
            let class = if traits.admin { JobClass::Admin } else { JobClass::Ordinary };
            self.jobs(class).check(caller.id)?;
            self.host.authorize(&caller.call(method, request.params))?;
            let identity = if traits.admin { 0 } else { self.host.identity(caller.name, caller.id) };
            let displaced = self.jobs(class).add(Job {
                caller: caller.name.to_owned(),
                caller_id: caller.id,
                identity,
                qos: caller.qos,
                call_id: request.call_id,
                method: method.to_owned(),
                params: request.params.to_vec(),
            })?;
            displaced.iter().for_each(|job| *dirty |= self.refuse_displaced(job));
            return Ok(None);
        }
        self.host.call(&caller.call(method, request.params)).map(Some)
    }

    /// Returns the result, or an error if the broker's queues have no room for a reply of that size.
    fn within_budget(&self, result: Vec<u8>) -> Result<Vec<u8>, CallError> {
        if result.len() < SHARE_FROM_BYTES || self.budget.has_room(result.len()) {
            return Ok(result);
        }
        let text = format!(
            "no room for a reply of {} bytes: {} bytes are queued, the limit is {} (max_queued_bytes)",
            result.len(),
            self.budget.queued(),
            self.budget.limit()
        );
        Err(CallError::new(Code::Busy.rpc_code(), text))
    }

    /// Answers a displaced job with an error. Returns whether a flush is needed.
    fn refuse_displaced(&self, job: &Job) -> bool {
        let caller = Caller { name: &job.caller, id: job.caller_id, qos: job.qos };
        if job.call_id == rpc::NO_REPLY || !caller.can_be_answered() {
            return false;
        }
        let text =
            b"too many calls are waiting, and this client or its identity has more of them than others";
        let reply = rpc::encode_error(job.call_id, Code::Busy.rpc_code(), text);
        self.reply_sender.send_shared(&caller, &reply.into())
    }
}

/// Returns the error for a caller whose queue is over its limit: a small reply instead of a large one.
fn unread() -> CallError {
    CallError::new(Code::Busy.rpc_code(), "too many replies are waiting to be read")
}
