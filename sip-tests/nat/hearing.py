"""Is the speech in a recording? By the envelopes (loudness in steps of 20 ms) of both. Standard library only."""
import array, math, wave

STEP = 0.02
# Root mean square below which a step counts as silence.
QUIET = 60.0


def envelope(path):
    """Loudness of each step; empty where there is no recording."""
    try:
        with wave.open(str(path)) as w:
            rate, samples = w.getframerate(), array.array("h", w.readframes(w.getnframes()))
    except (OSError, EOFError, wave.Error):
        return []
    size = int(rate * STEP)
    steps = (samples[i:i + size] for i in range(0, len(samples) - size + 1, size))
    return [math.sqrt(sum(s * s for s in step) / size) for step in steps]


def likeness(heard, spoken):
    """Correlation of two envelopes of equal length, in decibels above silence: 1 is the same, 0 has nothing to do with it."""
    a, b = ([20 * math.log10(max(v, QUIET) / QUIET) for v in e] for e in (heard, spoken))
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - ma) * (y - mb) for x, y in zip(a, b))
    low = math.sqrt(sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b))
    return top / low if low > 0 else 0.0


def best(heard, spoken):
    """The likeness at the place of `spoken` (which repeats) where it is greatest."""
    if not heard or max(heard) < QUIET:
        return 0.0
    n = len(spoken)
    return max(likeness(heard, [spoken[(i + at) % n] for i in range(len(heard))]) for at in range(n))


def hears(recording, spoken, seconds=2.0, least=0.6):
    """True when the last `seconds` of a recording are this speech."""
    e = envelope(recording)[-int(seconds / STEP):]
    return len(e) >= int(seconds / STEP) * 0.9 and best(e, envelope(spoken)) >= least


def silence_before(recording):
    """Milliseconds until something is heard; none where nothing is."""
    for i, value in enumerate(envelope(recording)):
        if value >= QUIET:
            return int(i * STEP * 1000)
    return None


def longest_gap(recording, spoken, until=None):
    """Seconds of the longest silence after the first sound that is longer than the longest pause of the speech; 0 where there is none."""
    def silences(steps):
        run, runs = 0, [0]
        for value in steps:
            run = run + 1 if value < QUIET else 0
            runs.append(run)
        return max(runs)
    steps = envelope(recording)
    first = next((i for i, v in enumerate(steps) if v >= QUIET), len(steps))
    pause = silences(envelope(spoken))
    longest = silences(steps[first:until])
    return round(longest * STEP, 2) if longest > pause + 10 else 0.0
