# A message keeps a number of four octets, which lie where its body's offset leaves room (message.pxd): tenant and campaign are
# in its envelope, and that is on disk when it waits.
cimport cython
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from angarium.queue.fair cimport fair_flow
from angarium.queue.pointer_set cimport siphash24
from angarium.spool.cspool cimport (
    SPOOL_ATTRIBUTE_CAMPAIGN, SPOOL_ATTRIBUTE_TENANT, spool_envelope, spool_envelope_find_attribute, spool_span)

import os

cdef enum:
    # Judged. Somebody who gives each message a campaign of its own must not fill the memory with their names: what comes when
    # there are so many goes with the rest of its tenant's mail.
    CAMPAIGNS_MOST = 100000


@cython.final
cdef class Flow:
    pass


@cython.final
cdef class Flows:
    def __cinit__(self):
        cdef bytes secret = os.urandom(sizeof(self.secret))
        memcpy(self.secret, <const char *>secret, sizeof(self.secret))
        self.weights = {}
        self.numbers = {}
        self.flows = []
        self.free_numbers = []
        self.add(b"", b"", b"\0")

    def __len__(self):
        return len(self.numbers)

    def weigh(self, dict weights):
        """weights: tenant (bytes) -> share of it beside others', 1 for who is not in it. Holds for who begins to wait from now on."""
        cdef Flow flow
        self.weights = weights
        for flow in self.flows:
            if flow is not None:
                flow.value.weight = weights.get(flow.tenant, 1)

    cdef Flow add(self, bytes tenant, bytes campaign, bytes key):
        cdef Flow flow = Flow.__new__(Flow)
        cdef uint32_t number
        flow.tenant = tenant
        flow.campaign = campaign
        flow.key = key
        flow.value.weight = self.weights.get(tenant, 1)
        if tenant:
            flow.value.tenant = siphash24(self.secret, <const uint8_t *><const char *>tenant, len(tenant))
        if campaign:
            flow.value.campaign = siphash24(self.secret, <const uint8_t *><const char *>key, len(key))
        if self.free_numbers:
            number = self.free_numbers.pop()
            self.flows[number] = flow
        else:
            number = <uint32_t>len(self.flows)
            self.flows.append(flow)
        self.numbers[key] = number
        return flow

    cdef uint32_t hold(self, const spool_envelope *view) except? 0xffffffff:
        cdef spool_span tenant, campaign
        cdef bytes key
        if view.end == view.chunks:
            return 0
        if not spool_envelope_find_attribute(view, SPOOL_ATTRIBUTE_TENANT, &tenant):
            tenant.length = 0
        if not spool_envelope_find_attribute(view, SPOOL_ATTRIBUTE_CAMPAIGN, &campaign):
            campaign.length = 0
        if tenant.length + campaign.length == 0:
            return 0
        key = (tenant.data[:tenant.length] if tenant.length else b"") + b"\0"
        if campaign.length:
            key += campaign.data[:campaign.length]
        number = self.numbers.get(key)
        if number is None:
            if campaign.length and len(self.numbers) >= CAMPAIGNS_MOST:
                key = key[:tenant.length + 1]
                number = self.numbers.get(key)
            if number is None:
                self.add(key[:tenant.length], key[tenant.length + 1:], key)
                number = self.numbers[key]
        if number:
            (<Flow>self.flows[number]).held += 1
        return number

    cdef void drop(self, uint32_t number) noexcept:
        cdef Flow flow
        if number == 0:
            return
        flow = <Flow>self.flows[number]
        flow.held -= 1
        if flow.held == 0:
            self.numbers.pop(flow.key, None)
            self.flows[number] = None
            self.free_numbers.append(number)

    cdef bytes tenant_of(self, uint32_t number):
        return (<Flow>self.flows[number]).tenant

    cdef const fair_flow *value_of(self, uint32_t number) noexcept:
        return &(<Flow>self.flows[number]).value
