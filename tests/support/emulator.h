// The link emulator: what a real network does to frames, seeded, as stages that compose.
//
//   input -> [segment] -> [rules] -> [loss] -> [corrupt] -> [duplicate] -> [rate + queue] -> [delay, jitter,
//   reorder] -> output
//
// One Emulator is one direction. Time comes from an EventQueue: virtual in tests, real in
// tools/link_emulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "stack/net/frame.h"
#include "tests/support/event_queue.h"

namespace ustack::test {

/// A frame as a value, without a link prefix.
struct WireFrame {
  std::vector<std::byte> bytes;
  Offload offload;
};

/// What one direction of a link does. The default does nothing at all, superframes pass whole.
struct Impairments {
  double loss = 0;       ///< probability that a frame is lost, 0 to 1
  double duplicate = 0;  ///< probability that it arrives twice
  double corrupt = 0;    ///< probability that one bit of it is turned over
  double reorder = 0;    ///< probability that it is held back by `reorder_by`, so that later ones overtake it
  Duration reorder_by = 5ms;
  Duration delay{};          ///< one-way propagation delay
  Duration jitter{};         ///< added to the delay, uniform in [0, jitter]; keeps the order
  uint64_t rate_bps = 0;     ///< bits per second, 0: no limit
  uint32_t queue_bytes = 0;  ///< waiting before the rate limit, tail drop; 0: no limit
  uint32_t queue_frames = 0;
  bool ethernet = true;  ///< frames begin with an Ethernet header
  bool segment = false;  ///< always cut superframes and complete checksums, as a real wire would

  /// Anything but a clean wire needs real frames, not superframes with partial checksums.
  bool needs_segmentation() const {
    return segment || loss > 0 || duplicate > 0 || corrupt > 0 || reorder > 0 || jitter > Duration{} ||
           rate_bps > 0;
  }
};

/// What became of the frames; drops by cause.
struct EmulatorCounters {
  uint64_t in = 0, out = 0, lost = 0, duplicated = 0, corrupted = 0, reordered = 0, queue_drops = 0,
           rule_drops = 0;
};

/// A stage takes frames and passes on what it lets through.
class Stage {
 public:
  using Output = std::function<void(WireFrame)>;
  virtual ~Stage() = default;
  virtual void input(WireFrame frame) = 0;
  void set_output(Output output) { output_ = std::move(output); }

 protected:
  void pass(WireFrame frame) { output_(std::move(frame)); }

 private:
  Output output_;
};

/// What an armed rule does with a frame: looks (and may change it), and says whether it goes on.
enum class Verdict { pass, drop };
using Rule = std::function<Verdict(WireFrame&)>;

/// One direction of a link with all its impairments.
class Emulator {
 public:
  Emulator(EventQueue& events, const Impairments& impairments, uint64_t seed, Stage::Output output);
  Emulator(const Emulator&) = delete;
  Emulator& operator=(const Emulator&) = delete;
  ~Emulator();

  void input(WireFrame frame);
  /// Arms a rule that sees every frame (after segmentation) before anything random happens to it.
  void add_rule(Rule rule);
  void clear_rules();
  const EmulatorCounters& counters() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Reads a name=value pair of the command line or of a test table: loss=0.02, delay=10ms, rate=100mbit, ...
/// Throws std::invalid_argument with what is wrong.
void set_impairment(Impairments& impairments, const std::string& name, const std::string& value);

}  // namespace ustack::test
