/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What every program includes first. */
#ifndef IRONCLAD_LIB_BASE_H
#define IRONCLAD_LIB_BASE_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "ironclad/abi/base.h"
#include "ironclad/abi/flat.h"
#include "ironclad/abi/shield.h"

#define IC_INLINE static __always_inline

/* One load or store that the compiler neither splits nor repeats. */
#define IC_READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define IC_WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

#endif
