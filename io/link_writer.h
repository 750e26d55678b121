// What the ways of writing a frame to a link have in common. Internal to io/.
#pragma once

#include <sys/uio.h>

#include <span>

#include "io/link.h"

namespace ustack::io {

inline constexpr uint32_t kMaxFrameParts = 1 + TxFrame::kMaxSlices;

/// The frame as an iovec, prefix and header in one part. Returns how many parts; 0: the frame can't be sent.
uint32_t gather(const Link& link, TxFrame& frame, std::span<iovec, kMaxFrameParts> parts);

/// Ends a frame's transmission: counts what failed, shows it to the capture and gives it back; or, when the
/// link was full (EAGAIN) or the write never began (ECANCELED), puts it in front of the host's queue again
/// and returns false. `result` is the system call's. Lock: the host's.
bool finish_transmission(Host& host, Link& link, TxFrame* frame, long result);

}  // namespace ustack::io
