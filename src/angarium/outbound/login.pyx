# AUTH of an outbound connection, between its hello and its first transaction (RFC 4954). Mechanisms are sasl/client.py's, lines
# smtp/client_auth.pyx's, what a refusal means trouble.py's; who we are to whom is said by configuration (sasl/logins.py).
#
# Nothing secret is ever in a text made here: reasons are the host's words, or those of sasl/client.Fault.
from angarium.outbound.connection cimport Connection
from angarium.smtp.client_auth cimport auth_begin, auth_challenge, auth_respond
from angarium.smtp.client_dialogue cimport CLIENT_AUTH

import functools

from angarium.metrics.counters import counter
from angarium.outbound import trouble
from angarium.sasl.client import ClientExchange, Derive, Fault, choose

logins = counter("angarium_outbound_logins_total", "Connections to other hosts that were authenticated.")


cdef int login_begin(Connection self) except -1:
    credentials = self.attempt.login
    offered = frozenset(self.session.mechanisms.decode("ascii", "replace").split())
    mechanism = choose(credentials, offered, self.tls)
    if mechanism is None:
        shown = " ".join(sorted(offered))
        return give_up(self, trouble.no_mechanism(self.remote, self.attempt.login_name,
                                                  "".join(each if each.isprintable() else "?" for each in shown),
                                                  usable_text(self, credentials.options)))
    self.exchange = ClientExchange(mechanism, credentials, offered, self.tls)
    try:
        initial = self.exchange.start()
    except Fault as fault:
        return give_up(self, fault_of(self, fault))
    return auth_begin(self.session, mechanism.encode("ascii"), initial)


cdef str usable_text(Connection self, object options):
    words = list(options.usable)
    if "EXTERNAL" in words and self.tls is not None and not self.tls.has_own_certificate:
        words[words.index("EXTERNAL")] = "EXTERNAL (with [shaping] tls_certificate, which is missing)"
    return " ".join(words)


cdef int login_challenged(Connection self) except -1:
    if self.fault is not None:              # it goes on behind our "*", and might for ever
        return give_up(self, fault_of(self, self.fault))
    try:
        response = self.exchange.respond(auth_challenge(self.session))
    except Fault as fault:
        return cancel(self, fault)
    if not isinstance(response, Derive):
        return auth_respond(self.session, response)
    # Tens of milliseconds of CPU, once for a password: the loop does not wait.
    task = self.scheduler.loop.run_in_executor(None, response.compute)
    task.add_done_callback(functools.partial(derived, self))
    return 0


def derived(Connection self, task):
    try:
        if task.cancelled() or self.is_closed or self.session.state != CLIENT_AUTH:
            task.cancelled() or task.exception()
            return
        try:
            auth_respond(self.session, self.exchange.derived(task.result()))
        except Fault as fault:
            cancel(self, fault)
        self.advance()
    except Exception as error:
        self.broken_inside(error)


cdef int login_accepted(Connection self) except -1:
    try:
        self.exchange.finish()
    except Fault as fault:
        return give_up(self, fault_of(self, fault))
    logins.add(1)
    self.submits = self.attempt.login.options.submitter
    if self.hello is not None and not self.hello.done():
        self.hello.set_result(None)
    return 0


cdef int login_refused(Connection self) except -1:
    reply = self.session.reply
    text = reply.text[:reply.text_length].decode("utf-8", "replace")
    if self.fault is not None:              # the reply to our "*"
        return give_up(self, fault_of(self, self.fault))
    if self.exchange.explanation:
        text += f" ({self.exchange.explanation})"
    status = (reply.status_class, reply.status_subject, reply.status_detail)
    return give_up(self, trouble.of_auth(reply.code, status, text, self.remote, login=self.attempt.login_name,
                                         mechanism=self.exchange.mechanism))


cdef object fault_of(Connection self, object fault):
    return trouble.of_auth_fault(str(fault), self.remote, self.attempt.login_name, self.exchange.mechanism)


cdef int cancel(Connection self, object fault) except -1:
    self.fault = fault
    return auth_respond(self.session, None)


cdef int give_up(Connection self, object judgement) except -1:
    self.session.quit()
    self.flush()                            # QUIT; its reply interests nobody
    self.end(judgement)
    return 0
