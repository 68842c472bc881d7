"""The example of docs/automation.md at work, over two workers and a restart."""

from __future__ import annotations

import json
import re
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, clean_relay, fix_port, outcomes, queue, wait_until_empty, workers
from end_to_end.smtp_client import SmtpClient
from relay_process import wait_for

PAGE = Path(__file__).parents[2] / "docs" / "automation.md"
_TIME = re.compile(r"\d{4}-\S+Z|since \w+|for \w+ more")


def example(hop: NextHop) -> str:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return text[text.index("[automation]") :].replace("smtp://127.0.0.1:2526", f"smtp://127.0.0.1:{hop.port}")


def refuse(line: bytes) -> bytes | None:
    if b"loud" in line:
        return b"451 4.7.0 Too many from you"
    return b"550 5.2.0 Your mailbox is being moved" if b"moving" in line else None


def test_the_example_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    with NextHop(faults={"RCPT": refuse}) as hop:
        config = example(hop) + NO_RETRY
        with clean_relay(tmp_path, config, workers=2) as relay:
            fix_port(relay, config)
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "moving@y.example")
            wait_for(lambda: outcomes(relay) == {"moving@y.example": ["deferred"]}, "a 550 is taken for a 450")
            for number in range(2):
                with SmtpClient(relay.port) as client:
                    client.send(MESSAGE, f"loud{number}@y.example")
            wait_for(lambda: relay.events("automation"), "the rule begins something")
            began = relay.events("automation")[0]
            assert (began["what"], began["rule"], began["reason"]) == ("began", "loud", "2 such replies in 10m")
            assert began["reply"] == "451 4.7.0 Too many from you"

            # Both workers hold mail back, also after a restart.
            name = began["name"]
            for held in (6, 12):
                wait_for(lambda: f"\n{name}  " in relay.command("automation", "list").stdout, "it is in force")
                assert workers(relay), "and each worker has heard of it"
                for number in range(6):
                    with SmtpClient(relay.port) as client:
                        client.send(MESSAGE, f"quiet{number}@z.example")
                wait_for(lambda held=held: len(queue(relay, "--state", "suspended")) == held, "all are held back")
                assert not hop.deliveries
                assert relay.stop() == 0
                relay.start()
            wait_for(lambda: len(queue(relay, "--state", "suspended")) == 12, "they are loaded")

            (text,) = re.findall(r"```console example\n(.*?)```", PAGE.read_text(), re.DOTALL)
            text = re.sub(r"(127\.0\.0\.1\]?):2526", rf"\1:{hop.port}", text)
            for command, expected in re.findall(r"^\$ angarium ([^\n]+)\n((?:[^$\n][^\n]*\n)*)", text, re.MULTILINE):
                done = relay.command(*command.split())
                assert _TIME.sub("TIME", done.stdout) == _TIME.sub("TIME", expected), command
            wait_for(lambda: len(hop.deliveries) == 12, "who was held back is let go")
            hop.faults.clear()
            assert relay.command("queue", "retry", "--all").returncode == 0
            wait_until_empty(relay)
            assert json.loads(relay.command("automation", "rules", "--json").stdout)["yahoo-volume"]["duration"] == 7200
            assert relay.command("automation", "explain", name).returncode == 2


def test_what_is_always_taken_for_the_other_kind_is_explained_and_stays_cancelled(tmp_path: Path) -> None:
    with NextHop(faults={"RCPT": refuse}) as hop:
        config = example(hop) + NO_RETRY
        with clean_relay(tmp_path, config, workers=2) as relay:
            fix_port(relay, config)
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "moving@y.example")
            wait_for(lambda: outcomes(relay) == {"moving@y.example": ["deferred"]}, "a 550 is taken for a 450")

            def told() -> str:
                return relay.command("automation", "explain", "not-for-good").stdout

            wait_for(lambda: "so far         1 replies" in told(), "it is counted")
            assert "550 5.2.0 Your mailbox is being moved" in told() and "ends           with its rule" in told()
            explained = relay.command("explain", "moving@y.example").stdout
            assert explained.startswith("moving@y.example: waits because 1 attempt has failed: 550"), explained
            assert "automation not-for-good (all mail): such replies are taken as temporary" in explained

            assert relay.command("automation", "cancel", "not-for-good").returncode == 0
            assert relay.command("automation", "cancel", "not-for-good").returncode == 2
            assert relay.stop() == 0
            relay.start()
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "moving-too@y.example")
            wait_for(lambda: outcomes(relay).get("moving-too@y.example") == ["failed"], "a 550 is a 550")
            assert relay.command("automation", "restore", "not-for-good").returncode == 0
            assert relay.command("automation", "restore", "not-for-good").returncode == 2
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "moving-again@y.example")
            wait_for(lambda: outcomes(relay).get("moving-again@y.example") == ["deferred"], "it holds again")
            told_in_log = [(each["what"], each["name"]) for each in relay.events("automation")]
            assert told_in_log == [("cancelled", "not-for-good"), ("restored", "not-for-good")]


HOOK = '''
from angarium.policy import Accept, Message


def on_message(message: Message) -> Accept:
    return Accept(tenant="shop", campaign=message.header.get("X-Campaign"))
'''
TENANT_RULE = '''
[automation.rule.spam]
text     = ["too much of it"]
scope    = "campaign"
action   = "suspend"
duration = "2s"
recovery = "10m"
steps    = 1
'''


def test_a_campaign_that_was_suspended_comes_back_in_steps_in_all_workers(tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text(HOOK)
    spring = b"X-Campaign: spring\r\n" + MESSAGE
    with NextHop(faults={"RCPT": lambda line: b"451 4.7.1 Too much of it" if b"loud" in line else None}) as hop:
        config = f'[policy]\nfile = "{hooks}"\n{TENANT_RULE}{hop.route}{NO_RETRY}'
        with clean_relay(tmp_path, config, workers=2) as relay:
            fix_port(relay, config)
            with SmtpClient(relay.port) as client:
                client.send(spring, "loud@y.example")
            wait_for(lambda: relay.events("automation"), "the campaign is suspended")
            assert workers(relay), "and each worker has heard of it"
            for number in range(6):
                with SmtpClient(relay.port) as client:
                    client.send(spring, f"a{number}@y.example")
                    client.send(MESSAGE, f"b{number}@y.example")

            def listed() -> str:
                return relay.command("automation", "list").stdout

            wait_for(lambda: "spam/shop/spring  recovering, 50 % of connections and rates" in listed(), "it comes back")
            assert "(going back, step 1 of 1): " in listed()
            told = [(each["what"], each.get("step"), each.get("steps")) for each in relay.events("automation")]
            assert told == [("began", None, None), ("recovering", 1, 1)]
            wait_for(lambda: len(hop.deliveries) == 12, "all is delivered, at half of the rates")
            assert relay.command("automation", "cancel", "spam/shop/spring").returncode == 0
            assert listed() == ""
