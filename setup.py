"""The compiled half of angarium: a list of extensions and a few switches.

ANGARIUM_DEBUG=1      -O0, C asserts, Cython bounds checks
ANGARIUM_SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer (implies debug)
ANGARIUM_FUZZ=1       the same and the coverage that libFuzzer is guided by; needs CC=clang (tools/fuzz-sessions)
ANGARIUM_ONLY=a,b     build only the extensions whose dotted name starts with one of these
Generated C goes under build/, never beside the sources.
"""

import glob
import os
from concurrent.futures import ThreadPoolExecutor

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FUZZ = os.environ.get("ANGARIUM_FUZZ") == "1"
SANITIZE = FUZZ or os.environ.get("ANGARIUM_SANITIZE") == "1"
DEBUG = SANITIZE or os.environ.get("ANGARIUM_DEBUG") == "1"
ONLY = tuple(filter(None, os.environ.get("ANGARIUM_ONLY", "").split(",")))

CFLAGS = ["-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function",
          "-Wno-missing-field-initializers", "-Wno-cast-function-type", "-fvisibility=hidden",
          "-fstack-protector-strong", "-D_GNU_SOURCE"]
LDFLAGS = ["-Wl,-z,relro,-z,now"]
if DEBUG:
    CFLAGS += ["-O1" if FUZZ else "-O0", "-g", "-UNDEBUG", "-DANGARIUM_DEBUG=1"]
else:
    CFLAGS += ["-O2", "-g1", "-DNDEBUG", "-D_FORTIFY_SOURCE=2"]
if SANITIZE:
    CFLAGS += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
if FUZZ:
    CFLAGS += ["-fsanitize=fuzzer-no-link"]     # the library that is loaded first brings what this calls
elif SANITIZE:
    LDFLAGS += ["-fsanitize=address,undefined"]

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": DEBUG,
    "embedsignature": True,
}

OCTETS = ["csrc/octets/octets.c"]
SMTP = ["csrc/smtp/command.c", "csrc/smtp/reply.c", "csrc/smtp/path.c", "csrc/smtp/data.c",
        "csrc/smtp/terms.c"]
ENVELOPE = ["csrc/spool/envelope.c", "csrc/spool/state.c"]
SPOOL = sorted(glob.glob("csrc/spool/*.c"))
TLS = [f"csrc/tls/{name}.c" for name in ("client_context", "context", "dane", "session", "ticket_keys")]
HEADERS = sorted(glob.glob("csrc/*/*.h")) + sorted(glob.glob("src/angarium/*/*.pxd"))

# dotted name -> C sources linked in beside the generated file
EXTENSIONS = {
    "angarium.smtp.machines": SMTP + OCTETS,
    "angarium.smtp.refusal_ids": [],
    "angarium.smtp.witness": [],
    "angarium.smtp.server_settings": [],
    "angarium.smtp.server_parameters": SMTP,
    "angarium.smtp.message_reader": SMTP + OCTETS,
    "angarium.smtp.server_dialogue": OCTETS,
    "angarium.smtp.server_auth": SMTP,
    "angarium.smtp.server_hello": SMTP,
    "angarium.smtp.server_qualify": [],
    "angarium.smtp.server_claims": [],
    "angarium.smtp.server_envelope": [],
    "angarium.smtp.server_refusals": [],
    "angarium.smtp.server_data": [],
    "angarium.smtp.server_session": SMTP + OCTETS,
    "angarium.smtp.client_dialogue": OCTETS,
    "angarium.smtp.client_auth": [],
    "angarium.smtp.client_hello": SMTP,
    "angarium.smtp.client_session": SMTP + OCTETS,
    "angarium.spool.envelope": OCTETS + ENVELOPE,
    "angarium.spool.segment_file": [f"csrc/spool/{name}.c" for name in ("crc32c", "format", "scan")],
    "angarium.spool.shard": OCTETS + SPOOL,
    "angarium.spool.foreign": OCTETS + SPOOL,
    "angarium.model.memory": [],
    "angarium.metrics.counters": [],
    "angarium.events.journal": [],
    "angarium.queue.wheel": [],
    "angarium.queue.shares": ["csrc/queue/shares.c"],
    "angarium.queue.rations": [],
    "angarium.queue.dial_line": [],
    "angarium.queue.passage": [],
    "angarium.queue.way": [],
    "angarium.queue.index": ["csrc/queue/pointer_set.c"],
    "angarium.queue.domains": ["csrc/queue/pointer_set.c", "csrc/octets/siphash.c"],
    "angarium.queue.planner": OCTETS + ENVELOPE,
    "angarium.queue.slab": [],
    "angarium.queue.troubles": [],
    "angarium.queue.terms": ["csrc/spool/envelope.c", "csrc/octets/octets.c"],
    "angarium.queue.record": OCTETS + ENVELOPE,
    "angarium.queue.log": OCTETS + ENVELOPE,
    "angarium.queue.ledger": OCTETS,
    "angarium.queue.flows": ["csrc/octets/siphash.c", "csrc/spool/envelope.c", *OCTETS],
    "angarium.queue.order": ["csrc/queue/fair.c"],
    "angarium.queue.overflow": ["csrc/queue/fair.c"],
    "angarium.queue.ready": [],
    "angarium.queue.guests": [],
    "angarium.queue.fetch": OCTETS,
    "angarium.queue.injection": OCTETS + ENVELOPE,
    "angarium.queue.recovery": OCTETS + ENVELOPE,
    "angarium.queue.keeper": OCTETS + ENVELOPE,
    "angarium.queue.outcomes": OCTETS + ENVELOPE,
    "angarium.queue.matching": OCTETS + ENVELOPE,
    "angarium.queue.steering": OCTETS + ENVELOPE,
    "angarium.queue.walk": OCTETS + ENVELOPE,
    "angarium.queue.scheduler": OCTETS + ENVELOPE,
    "angarium.queue.inspect": OCTETS + ENVELOPE,
    "angarium.queue.explain": OCTETS + ENVELOPE,
    "angarium.queue.site_counts": [],
    "angarium.queue.compaction": OCTETS + ENVELOPE,
    "angarium.handover.frames": [],
    "angarium.handover.link": [],
    "angarium.handover.outlet": OCTETS,
    "angarium.handover.reception": [],
    "angarium.handover.homes": [],
    "angarium.recipients.tables": ["csrc/recipients/text_map.c", "csrc/recipients/cdb.c", "csrc/octets/siphash.c"],
    "angarium.mime.received": OCTETS,
    "angarium.inbound.networks": [],
    "angarium.inbound.claimed": [],
    "angarium.inbound.scheduled": ["csrc/mime/header.c"],
    "angarium.inbound.solicitation": ["csrc/mime/header.c", "csrc/smtp/terms.c"],
    "angarium.inbound.submitted": [*OCTETS, "csrc/mime/header.c", "csrc/spool/envelope.c"],
    "angarium.mime.header_section": ["csrc/mime/header.c"],
    "angarium.tls.context": TLS + OCTETS,
    "angarium.tls.session": TLS + OCTETS,
    "angarium.tls.client": TLS + OCTETS,
    "angarium.inbound.refusals": [],
    "angarium.admission.tallies": ["csrc/admission/tallies.c", "csrc/octets/siphash.c"],
    "angarium.admission.bounds": ["csrc/admission/bounds.c"],
    "angarium.inbound.gate": ["csrc/admission/tallies.c", "csrc/octets/siphash.c"],
    "angarium.inbound.limits": ["csrc/admission/tallies.c", "csrc/octets/siphash.c"],
    "angarium.inbound.load": ["csrc/admission/tallies.c", "csrc/octets/siphash.c"],
    "angarium.inbound.context": [],
    "angarium.inbound.transaction": [*OCTETS, "csrc/spool/envelope.c"],
    "angarium.inbound.client": [],
    "angarium.inbound.auth": [],
    "angarium.inbound.commit": [*OCTETS, "csrc/spool/envelope.c"],
    "angarium.inbound.chunks": OCTETS,
    "angarium.inbound.proxied": ["csrc/smtp/proxy.c"],
    "angarium.inbound.terms": [],
    "angarium.inbound.mail": [],
    "angarium.inbound.rcpt": [],
    "angarium.inbound.verdict": OCTETS,
    "angarium.inbound.data": [*OCTETS, "csrc/spool/envelope.c"],
    "angarium.inbound.starttls": [],
    "angarium.inbound.inquiry": [],
    "angarium.inbound.greeting": [],
    "angarium.sockets.poll": [],
    "angarium.inbound.wire": OCTETS,
    "angarium.inbound.acceptor": [],
    "angarium.inbound.connection": OCTETS,
    "angarium.outbound.carrier": OCTETS,
    "angarium.outbound.body_stream": [*OCTETS, "csrc/spool/envelope.c"],
    "angarium.outbound.transaction": [*OCTETS, "csrc/spool/envelope.c"],
    "angarium.outbound.login": OCTETS,
    "angarium.outbound.wire": OCTETS,
    "angarium.outbound.connection": OCTETS,
    "angarium.outbound.pool": [],
    "angarium.outbound.dispatcher": [],
    "angarium.measure.spool_load": [*OCTETS, "csrc/spool/envelope.c"],
    "angarium.mailbox.egress": [*OCTETS, "csrc/spool/envelope.c"],
}


def extensions() -> list[Extension]:
    chosen = []
    for name, sources in EXTENSIONS.items():
        pyx = "src/" + name.replace(".", "/") + ".pyx"
        if ONLY and not name.startswith(ONLY):
            continue
        chosen.append(Extension(name, [pyx, *sources], include_dirs=["csrc"], depends=HEADERS,
                                libraries=["ssl", "crypto"] if name.startswith("angarium.tls.") else [],
                                extra_compile_args=CFLAGS, extra_link_args=LDFLAGS))
    return chosen


class BuildExtensions(build_ext):
    """Compiles each C source once, before the extensions: of two that shared it and were built at once, one could link
    the object that the other was just writing anew, which the linker takes for an empty file without a word."""

    def build_extensions(self) -> None:
        linked = [[source for source in ext.sources if source.startswith("csrc/")] for ext in self.extensions]
        with ThreadPoolExecutor(self.parallel or 1) as pool:
            objects = dict(pool.map(self.compile_once, sorted(set().union(*linked))))
        for ext, sources in zip(self.extensions, linked, strict=True):
            ext.sources = [source for source in ext.sources if source not in sources]
            ext.depends = [*ext.depends, *sources]
            ext.extra_objects = [objects[source] for source in sources]
        super().build_extensions()

    def compile_once(self, source: str) -> tuple[str, str]:
        built = self.compiler.object_filenames([source], output_dir=self.build_temp)[0]
        if self.force or not os.path.exists(built) or any(os.path.getmtime(needed) > os.path.getmtime(built)
                                                          for needed in [source, *HEADERS]):
            self.compiler.compile([source], output_dir=self.build_temp, include_dirs=["csrc"], extra_postargs=CFLAGS)
        return source, built


# Directives are compiled in and not seen in the time stamps: debug and release must not share generated files.
setup(cmdclass={"build_ext": BuildExtensions},
      ext_modules=cythonize(extensions(), build_dir="build/cython-debug" if DEBUG else "build/cython",
                            include_path=["src"],
                            compiler_directives=DIRECTIVES,
                            nthreads=0))
