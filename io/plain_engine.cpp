#include "io/plain_engine.h"

#include "io/capture.h"
#include "io/clock.h"
#include "io/poll_once.h"

namespace ustack::io {

namespace {

/// While frames queue up, poll is asked only every so many turns: often enough for the kernel's descriptors
/// and wake-ups, seldom enough not to show.
constexpr uint32_t kUnpolledTurns = 4;

}  // namespace

void PlainEngine::transmit() {
  blocked_ = !io::transmit(host_, link_);
  reader_.prepare();
  if (link_.capture != nullptr) link_.capture->flush();
}

WaitResult PlainEngine::wait(const WaitRequest& request) {
  if (reader_.backlog() && unpolled_ < kUnpolledTurns) {
    ++unpolled_;
    if (WaitResult result; reader_.read(true, now())) {
      report_link(result);
      return result;
    }
  }
  unpolled_ = 0;

  PollOutcome polled = poll_once(reader_.lost() ? -1 : link_.fd(), blocked_, request, spin_);
  if (polled.link_readable) {
    if (!polled.slept) reader_.expect_more();
    reader_.read(reader_.wants_all(), polled.at);
    report_link(polled.result);
  }
  return polled.result;
}

void PlainEngine::report_link(WaitResult& result) {
  result.frames = reader_.filled() > 0;
  if (reader_.lost() && !loss_reported_) result.link_lost = loss_reported_ = true;
}

void PlainEngine::deliver(Instant now) { reader_.deliver(now); }

void PlainEngine::tear_down(bool owner) {
  if (owner) reader_.release_all();
  // In a child the blocks are its parent's: they must not be released, nor the reader destroyed.
}

}  // namespace ustack::io
