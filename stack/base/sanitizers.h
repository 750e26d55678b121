// Which sanitizers this is compiled for.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define USTACK_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define USTACK_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define USTACK_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define USTACK_TSAN 1
#endif
#endif

namespace ustack {
#ifdef USTACK_ASAN
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif
#ifdef USTACK_TSAN
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
}  // namespace ustack
