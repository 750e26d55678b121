// What the parts of a host share.
#pragma once

#include "stack/base/log.h"
#include "stack/base/random.h"
#include "stack/base/time.h"
#include "stack/counters.h"
#include "stack/mem/arena.h"
#include "stack/mem/block.h"
#include "stack/net/frame.h"
#include "stack/settings.h"
#include "stack/shards.h"
#include "stack/time/timer.h"

namespace ustack {

/// What the parts of a host share. References stay valid as long as the host.
struct HostContext {
  Arena& arena;
  BlockPool& blocks;
  FramePool& frames;
  Scheduler& scheduler;
  TimerWheel& timers;
  RandomSource& random;
  Counters& counters;
  Settings& settings;
  const Log& log;
  /// The time of the batch being processed; set once per Host::receive/run, read instead of a clock.
  const Instant& now;
  /// Host::set_queue().
  const uint8_t& queue;
  /// nullptr: the host is whole; else it is this one of several.
  const Shards* shards = nullptr;
  uint8_t shard = 0;
};

}  // namespace ustack
