"""What could not be read at start is not gone: a shard opened while descriptors are out must not recycle its segments.

The story: recovery took "cannot be opened" for "holds nothing", wrote a FREE header over the segment, and acknowledged
mail was lost for good, without a word.
"""

import asyncio
import os
import resource

from angarium.spool.notice import NoticeKind
from angarium.spool.shard import Shard


async def recovered(shard: Shard) -> int:
    count = 0
    while (batch := shard.recover()) is not None:
        count += len(batch)
        await asyncio.sleep(0.005)
    return count


def test_mail_that_could_not_be_read_for_want_of_descriptors_is_found_by_the_next_start(tmp_path):
    async def test() -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        loop = asyncio.get_running_loop()
        shard = Shard(directory, "00", 0, segment_octets=1 << 20)
        shard.attach(loop)
        await recovered(shard)
        for _ in range(5):
            await shard.append(b"a@x.example", [b"b@y.example"], b"x" * 4000)
        shard.close()

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(30)]
        for fd in taken[-3:]:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, hard))
        try:
            shard = Shard(directory, "00", 0, segment_octets=1 << 20)
            shard.attach(loop)
            found = await recovered(shard)
            notices = shard.notices()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken[:-3]:
                os.close(fd)
        shard.close()
        if found < 5:       # where the pressure bit, it was said
            assert any(each.kind == NoticeKind.UNREAD for each in notices), notices

        shard = Shard(directory, "00", 0, segment_octets=1 << 20)
        shard.attach(loop)
        assert await recovered(shard) == 5
        shard.close()
        os.close(directory)

    asyncio.run(test())
