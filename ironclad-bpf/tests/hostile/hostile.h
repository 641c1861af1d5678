/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the objects of this directory share. No header of a kernel: helpers are called by number, as a
 * hostile object would. */
#ifndef HOSTILE_H
#define HOSTILE_H

#define SEC(name) __attribute__((section(name), used))
#define KSYM __attribute__((section(".ksyms")))
#define NOINLINE __attribute__((noinline))

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define GETPID "tracepoint/syscalls/sys_enter_getpid"

#define LICENSE const char ic_license[] SEC("license") = "GPL"

#define TYPE(number) int(*type)[number]
#define ENTRIES(number) int(*max_entries)[number]

#endif
