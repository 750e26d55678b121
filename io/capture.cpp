#include "io/capture.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <new>

#include "io/clock.h"
#include "io/fork_mark.h"
#include "io/syscalls.h"
#include "stack/base/checksum.h"

namespace ustack::io {

namespace {

// draft-ietf-opsawg-pcapng, sections 4.1 to 4.3. Numbers are in the writer's byte order, which the section
// header tells; ours is little-endian.
constexpr uint32_t kSectionHeader = 0x0a0d0d0a, kByteOrderMagic = 0x1a2b3c4d;
constexpr uint32_t kInterfaceDescription = 1, kEnhancedPacket = 6;
constexpr uint16_t kOptEnd = 0, kOptUserAppl = 4, kOptIfTsresol = 9, kOptEpbFlags = 2;
constexpr uint16_t kLinkTypeEthernet = 1, kLinkTypeRaw = 101;
constexpr uint32_t kInbound = 1, kOutbound = 2;  // epb_flags, bits 0 and 1
/// Head of an enhanced packet block up to the frame, and what follows the frame's padding: the flags option,
/// the end of options, the length again.
constexpr uint32_t kPacketHead = 28, kPacketTail = 8 + 4 + 4;

/// Bytes in a growing block.
class Writer {
 public:
  explicit Writer(std::byte* to) : at_(to), begin_(to) {}
  template <typename T>
  void put(T value) {
    std::memcpy(at_, &value, sizeof value);
    at_ += sizeof value;
  }
  void option(uint16_t code, const void* value, uint16_t length) {
    put(code);
    put(length);
    std::memset(at_, 0, (length + 3u) / 4 * 4);
    std::memcpy(at_, value, length);
    at_ += (length + 3u) / 4 * 4;
  }
  size_t size() const { return static_cast<size_t>(at_ - begin_); }

 private:
  std::byte* at_;
  std::byte* begin_;
};

/// Section header and interface description.
size_t write_head(std::byte* to, bool ethernet, uint32_t snap_length) {
  constexpr char kApplication[] = "libustack";
  Writer w(to);
  uint32_t length = 28 + 4 + 12 + 4;
  w.put(kSectionHeader);
  w.put(length);
  w.put(kByteOrderMagic);
  w.put(uint16_t{1});
  w.put(uint16_t{0});
  w.put(~uint64_t{0});  // the section's length: unknown
  w.option(kOptUserAppl, kApplication, sizeof kApplication - 1);
  w.put(kOptEnd);
  w.put(uint16_t{0});
  w.put(length);

  length = 20 + 8 + 4;
  w.put(kInterfaceDescription);
  w.put(length);
  w.put(ethernet ? kLinkTypeEthernet : kLinkTypeRaw);
  w.put(uint16_t{0});
  w.put(snap_length);
  uint8_t nanoseconds = 9;
  w.option(kOptIfTsresol, &nanoseconds, 1);
  w.put(kOptEnd);
  w.put(uint16_t{0});
  w.put(length);
  return w.size();
}

int64_t nanoseconds_of(clockid_t clock) {
  timespec ts{};
  clock_gettime(clock, &ts);
  return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

/// What the link does to a partial checksum: the sum of the pseudo-header that stands in the field is
/// completed by everything from checksum_start on.
void complete_checksum(MutableBytes frame, const Offload& offload) {
  if (!offload.partial_checksum) return;
  size_t field = size_t{offload.checksum_start} + offload.checksum_offset;
  if (field + 2 > frame.size()) return;
  uint16_t checksum = checksum_of(frame.subspan(offload.checksum_start));
  // RFC 768: a computed UDP checksum of zero is sent as all ones; TCP doesn't mind (RFC 1624, section 3).
  store_be16(frame.data() + field, checksum == 0 ? 0xffff : checksum);
}

}  // namespace

std::optional<OpenError> Capture::open(const std::string& path, const LinkInfo& link, Capture** capture) {
  long fd = sys::openat(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
  if (fd < 0) {
    return OpenError{static_cast<int>(-fd),
                     "can't open the capture file " + path + ": " + std::strerror(static_cast<int>(-fd))};
  }
  Descriptor file(static_cast<int>(fd));
  long mapped = sys::mmap(nullptr, sizeof(Capture), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  if (sys::failed(mapped)) return OpenError{ENOMEM, "no memory for the capture's buffer"};
  *capture = new (reinterpret_cast<void*>(mapped)) Capture(std::move(file), link);
  return std::nullopt;
}

void Capture::close(Capture* capture) {
  if (capture == nullptr) return;
  capture->flush();
  capture->~Capture();
  sys::munmap(capture, sizeof(Capture));
}

Capture::Capture(Descriptor fd, const LinkInfo& link)
    : fd_(std::move(fd)),
      generation_(fork_generation()),
      epoch_offset_(nanoseconds_of(CLOCK_REALTIME) - nanoseconds_of(CLOCK_MONOTONIC)),
      ethernet_(link.kind == LinkInfo::Kind::ethernet) {
  used_ = write_head(buffer_, ethernet_, 0);
  flush();
}

/// A child inherits what its parent will write, or has written, itself.
void Capture::forget_if_forked() {
  if (uint64_t generation = fork_generation(); generation != generation_) {
    generation_ = generation;
    used_ = 0;
  }
}

/// Writes a packet block around room for the frame, which the caller fills. nullptr: a frame that doesn't
/// fit.
std::byte* Capture::reserve(uint32_t frame_bytes, Instant at, bool outbound) {
  forget_if_forked();
  uint32_t padded = (frame_bytes + 3) / 4 * 4;
  uint32_t length = kPacketHead + padded + kPacketTail;
  if (length > kBufferBytes) {
    ++lost_;
    return nullptr;
  }
  if (used_ + length > kBufferBytes) flush();

  std::byte* block = buffer_ + used_;
  auto time = static_cast<uint64_t>(at.time_since_epoch().count() + epoch_offset_);
  Writer head(block);
  head.put(kEnhancedPacket);
  head.put(length);
  head.put(uint32_t{0});  // the interface
  head.put(static_cast<uint32_t>(time >> 32));
  head.put(static_cast<uint32_t>(time));
  head.put(frame_bytes);  // captured
  head.put(frame_bytes);  // on the wire
  std::memset(block + kPacketHead + padded - 4, 0, padded > 0 ? 4 : 0);
  Writer tail(block + kPacketHead + padded);
  uint32_t flags = outbound ? kOutbound : kInbound;
  tail.option(kOptEpbFlags, &flags, sizeof flags);
  tail.put(kOptEnd);
  tail.put(uint16_t{0});
  tail.put(length);
  used_ += length;
  return block + kPacketHead;
}

void Capture::received(const RxFrame& frame) {
  uint32_t length = frame.data.length;
  std::byte* copy = reserve(length, frame.arrived, false);
  if (copy == nullptr) return;
  std::memcpy(copy, frame.data.data(), length);
  complete_checksum({copy, length}, frame.offload);
}

void Capture::sent(TxFrame& frame, Instant now) {
  if (!frame.settle()) return;
  std::byte* copy = reserve(frame.size(), now, true);
  if (copy == nullptr) return;
  std::byte* at = copy;
  MutableBytes header = frame.header();
  std::memcpy(at, header.data(), header.size());
  at += header.size();
  for (const Slice& slice : frame.payload()) {
    std::memcpy(at, slice.data(), slice.length);
    at += slice.length;
  }
  complete_checksum({copy, frame.size()}, frame.offload);
}

void Capture::flush() {
  forget_if_forked();
  size_t written = 0;
  while (written < used_) {
    long result = sys::write(fd_.get(), buffer_ + written, used_ - written);
    if (result == -EINTR) continue;
    if (result <= 0) {
      ++lost_;
      break;
    }
    written += static_cast<size_t>(result);
  }
  used_ = 0;
}

}  // namespace ustack::io
