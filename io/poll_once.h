// One ppoll over what an engine waits for. Internal to io/.
#pragma once

#include "io/adaptive_spin.h"
#include "io/engine.h"
#include "io/syscalls.h"

namespace ustack::io {

/// What a poll said, in the terms of a wait.
struct PollOutcome {
  WaitResult result;
  /// A bit for each queue of the link.
  uint32_t readable = 0;
  /// When it came back.
  Instant at{};
  /// It came back at once: whatever was readable had been waiting for us.
  bool slept = true;
  SpinOutcome spin = SpinOutcome::none;
};

/// A wait that has slept took at least two switches of context; one that found something at once, well under
/// a microsecond.
inline constexpr Duration kSleptAtLeast = 3us;

/// Waits with ppoll(2) for the link's queues `queues` (a bit each; `link_full`: for room to write, too) and
/// for what `request` names else, spinning for `spin` first. Takes the wake-up's value away. No lock.
PollOutcome poll_once(const Link& link, uint32_t queues, bool link_full, const WaitRequest& request,
                      Duration spin);

}  // namespace ustack::io
