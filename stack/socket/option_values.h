// Values of setsockopt(2) and getsockopt(2) as Linux reads and writes them, whatever the protocol.
#pragma once

#include <cstdint>
#include <string_view>

#include "stack/base/bytes.h"
#include "stack/base/result.h"
#include "stack/base/time.h"

namespace ustack {

class Network;

/// What a value is as a number; IPPROTO_IP's may be a byte, or nothing for 0. EINVAL.
Result<int> read_number(int level, Bytes value);
/// Puts a number out, which fits a byte where there is room for no more (IPPROTO_IP); how many bytes.
size_t write_number(int level, int number, MutableBytes out);

/// SO_RCVTIMEO and SO_SNDTIMEO (sock_set_timeout); zero means for ever. EINVAL, EDOM.
Result<Duration> read_timeout(Bytes value);
size_t write_timeout(Duration timeout, MutableBytes out);

/// SO_RCVBUF and SO_SNDBUF: doubled, since the accounting is by true size (socket(7)); a negative one counts
/// as huge. `most` before that, `least` after it.
uint32_t buffer_limit(int value, int most, int least);
/// No buffer is smaller (Linux's SOCK_MIN_SNDBUF and SOCK_MIN_RCVBUF).
inline constexpr uint16_t kLeastSendBuffer = 4608, kLeastReceiveBuffer = 2304;

/// SO_BINDTODEVICE: packets come and go this way only.
enum class BoundDevice : uint8_t { any, link, loopback };
/// sock_setbindtodevice. ENODEV: the host has no such device.
Result<BoundDevice> read_device(const Network& network, Bytes value);
/// Its name with a zero; nothing for `any`. EINVAL: no room.
Result<size_t> write_device(const Network& network, BoundDevice device, MutableBytes out);

/// IP_MTU_DISCOVER.
enum class PmtuDiscovery : uint8_t { dont = 0, want = 1, always = 2, probe = 3, interface = 4, omit = 5 };

}  // namespace ustack
