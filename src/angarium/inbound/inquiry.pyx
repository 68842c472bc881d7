# Asks the judges of a listener (judgement.py) about one command while its session waits. What is done with the answer is the
# verb's. A judge that answers at once costs a call; a coroutine is run as a task, and where Python can (3.12) to its first
# pause before anything else.
import asyncio
import sys
import traceback

cimport cython
from angarium.inbound.client cimport Client
from angarium.inbound.inquiry cimport inquiry_end

from angarium.metrics.counters import counter
from angarium.model.refusal import Refusal
from angarium.smtp import replies

cdef object failures_total = counter("angarium_in_judge_failures_total", "Judges that failed or did not answer: 451.")
cdef object FAILED = Refusal(reply=replies.LOCAL_TROUBLE, reason="judge-failed")
cdef bint HAS_EAGER_TASKS = sys.version_info >= (3, 12)
# Whoever asks others has deadlines of his own; this one is for those who forgot. RFC 5321 §4.5.3.2: clients wait five minutes.
cdef double PATIENCE_S = 120.0


@cython.final
cdef class Inquiry:
    """Owned by its client until it has ended. Without a client it is over, whatever is still answered."""
    cdef Client client
    cdef object case
    cdef tuple judges
    cdef Py_ssize_t at
    cdef inquiry_end end
    cdef object task
    cdef object deadline

    cdef void go_on(self) noexcept:
        cdef object answer
        try:
            while self.at < len(self.judges):
                answer = self.judges[self.at](self.case)
                self.at += 1
                if answer is not None and type(answer) is not Refusal:
                    answer = self.begin(answer)
                    if self.task is not None:
                        return
                if answer is not None:
                    self.finish(answer)
                    return
            self.finish(None)
        except (Exception, asyncio.CancelledError) as error:     # a judge that cancels itself has not answered
            self.fail(error)

    cdef object begin(self, object coroutine):
        """Its answer, when it has one at once; otherwise self.task is set."""
        loop = self.client.context.intake.loop
        if HAS_EAGER_TASKS:
            task = asyncio.Task(coroutine, loop=loop, eager_start=True)
            if task.done():
                return task.result()
        else:
            task = loop.create_task(coroutine)
        self.task = task
        task.add_done_callback(self.answered)
        if self.deadline is None:
            self.deadline = loop.call_later(PATIENCE_S, self.expired)
        return None

    def answered(self, task):
        self.task = None
        if self.client is None:
            if not task.cancelled():
                task.exception()        # looked at: nobody is to be told
            return
        try:
            answer = task.result()
        except asyncio.CancelledError as error:
            self.fail(error)
            return
        except Exception as error:
            self.fail(error)
            return
        if answer is not None:
            self.finish(answer)
        else:
            self.go_on()

    def expired(self):
        self.deadline = None
        self.fail(TimeoutError(f"no answer within {PATIENCE_S:.0f} s"))

    cdef void fail(self, object error) noexcept:
        failures_total.add(1)
        try:
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{frames[len(frames) - 1].filename}:{frames[len(frames) - 1].lineno}" if frames else ""
            self.client.context.intake.journal.log("error", where="judge", at=where, reason=repr(error))
        finally:
            self.finish(FAILED)

    cdef void finish(self, object refusal) noexcept:
        cdef Client client = self.client
        if refusal is not None and client.visit is not None:
            refusal = said_instead(client, refusal)
        self.release()
        client.inquiry = None
        self.end(client, self.case, refusal)

    cdef void release(self) noexcept:
        cdef object task = self.task
        self.client = None
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        if task is not None:
            task.cancel()


cdef object said_instead(Client client, object refusal):
    """What a policy service wants to be said in its place, if one does (policy_state.py)."""
    try:
        return client.visit.in_place_of(refusal)
    except Exception as error:
        client.context.intake.journal.log("error", where="policy", reason=repr(error))
        return refusal


cdef void inquire(Client client, tuple judges, object case, inquiry_end end) noexcept:
    cdef Inquiry inquiry = Inquiry.__new__(Inquiry)
    inquiry.client = client
    inquiry.case = case
    inquiry.judges = judges
    inquiry.end = end
    client.inquiry = inquiry
    inquiry.go_on()


cdef void inquiry_drop(Client client) noexcept:
    cdef Inquiry inquiry = client.inquiry
    client.inquiry = None
    inquiry.release()
