#include "io/plain_engine.h"

#include "io/capture.h"

namespace ustack::io {

void PlainEngine::transmit() {
  Changing changing(*this);
  blocked_ = !io::transmit(host_, link_);
  reader_.prepare();
  if (link_.capture != nullptr) link_.capture->flush();
}

WaitResult PlainEngine::wait(const WaitRequest& request) {
  return reader_.wait(blocked_ || request.room, request, spin_);
}

void PlainEngine::deliver(Instant now) {
  Changing changing(*this);
  reader_.deliver(now);
}

void PlainEngine::forget(int kernel_fd) { reader_.forget(kernel_fd); }

void PlainEngine::tear_down(bool owner) {
  reader_.close_descriptors();
  // In a child the blocks are its parent's, and not to be released.
  if (owner) reader_.release_all();
}

}  // namespace ustack::io
